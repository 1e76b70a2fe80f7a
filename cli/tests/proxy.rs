//! The way to the controller through an HTTP proxy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod site;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use site::Site;

/// A CONNECT proxy that wants these credentials, and the lines it was asked.
fn proxy(credentials: Option<&'static str>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || serve(&stream, credentials, &log));
        }
    });
    (address, asked)
}

fn serve(stream: &TcpStream, credentials: Option<&str>, log: &Mutex<Vec<String>>) {
    let mut lines = Vec::new();
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    log.lock().unwrap().push(lines[0].clone());
    let mut writer = stream;
    let allowed = credentials.is_none_or(|wanted| {
        lines.iter().any(|line| line.eq_ignore_ascii_case(&format!("proxy-authorization: Basic {wanted}")))
    });
    if !allowed {
        let _ = writer.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    let target = lines[0].split(' ').nth(1).unwrap();
    let Ok(upstream) = TcpStream::connect(target) else { return };
    let _ = writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    let (mut down, mut up) = (stream.try_clone().unwrap(), upstream.try_clone().unwrap());
    std::thread::spawn(move || copy(&mut up, &mut down));
    copy(&mut stream.try_clone().unwrap(), &mut upstream.try_clone().unwrap());
}

fn copy(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn the_proxy_of_the_environment_is_used_with_its_credentials() {
    let site = Site::start();
    site.signed_in();
    // "user:word" in base64.
    let (address, asked) = proxy(Some("dXNlcjp3b3Jk"));
    let output =
        site.culvert(&["whoami"]).env("HTTPS_PROXY", format!("http://user:word@{address}")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = format!("CONNECT 127.0.0.1:{} HTTP/1.1", site.address.port());
    assert_eq!(asked.lock().unwrap().first().unwrap(), &expected);
}

#[test]
fn a_proxy_that_wants_credentials_is_said_to_be_the_cause() {
    let site = Site::start();
    site.signed_in();
    let (address, _) = proxy(Some("dXNlcjp3b3Jk"));
    let output = site.culvert(&["whoami"]).env("HTTPS_PROXY", format!("http://{address}")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(8), "{text}");
    assert!(text.contains("proxy") && text.contains("HTTPS_PROXY"), "{text}");
}

#[test]
fn no_proxy_leads_past_it() {
    let site = Site::start();
    site.signed_in();
    let (address, asked) = proxy(None);
    let mut command = site.culvert(&["whoami"]);
    command.env("HTTPS_PROXY", format!("http://{address}")).env("NO_PROXY", "127.0.0.1");
    assert!(command.output().unwrap().status.success());
    assert!(asked.lock().unwrap().is_empty());
}
