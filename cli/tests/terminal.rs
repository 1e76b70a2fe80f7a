//! What happens on a terminal: no echo of a code, lights drawn over, questions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, also in what its tests share"
)]

mod site;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use culvert_pki::token::SignInCode;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use site::{Reply, Site, wait_for};

/// A program on a terminal of its own, and what it has shown so far.
struct Session {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    screen: Arc<Mutex<String>>,
}

impl Session {
    fn start(site: &Site, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let child = Command::new(assert_cmd::cargo::cargo_bin!("culvert"))
            .args(arguments)
            .env_clear()
            .env("HOME", site.home.path())
            .env("CULVERT_CONFIG", site.config())
            .env("TERM", "xterm")
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (shown, mut eye) = (Arc::clone(&screen), File::from(master.try_clone().unwrap()));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = eye.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        let terminal = OwnedFd::from(open());
        Self { child, keyboard: File::from(master), terminal, screen }
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    fn wait_to_see(&self, text: &str) {
        wait_for(text, || (self.shown().contains(text), self.shown()));
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn end(mut self) -> (i32, String) {
        let status = self.child.wait().unwrap();
        (status.code().unwrap_or(-1), self.shown())
    }
}

#[test]
fn a_pin_is_shown_and_asked_about_and_the_code_is_not_echoed() {
    let site = Site::start();
    let token = site.token.clone();
    site.handle("POST", "/api/v1/sessions", move |_| Reply::json(201, format!("{{\"token\":\"{token}\"}}")));
    let code = SignInCode::generate().unwrap().expose().to_string();
    let mut session = Session::start(&site, &["login", &site.url()]);
    session.wait_to_see("[y/N]");
    assert!(session.shown().contains(&site.pin), "{}", session.shown());
    assert!(site.requests().is_empty(), "nothing is sent before the answer");
    session.type_in("y\n");
    session.wait_to_see("Sign-in code: ");
    wait_for("a terminal that hides", || (!session.echoes(), session.shown()));
    session.type_in(&format!("{code}\n"));
    session.wait_to_see("signed in as ada");
    wait_for("a terminal that shows again", || (session.echoes(), session.shown()));
    let (exit, shown) = session.end();
    assert_eq!(exit, 0, "{shown}");
    assert!(!shown.contains(&code), "{shown}");
}

#[test]
fn a_no_stops_and_ctrl_c_gives_the_echo_back() {
    let site = Site::start();
    let mut session = Session::start(&site, &["login", &site.url()]);
    session.wait_to_see("[y/N]");
    session.type_in("n\n");
    assert_eq!(session.end().0, 1);

    let session = Session::start(&site, &["login", &site.url(), "--pin", &site.pin]);
    session.wait_to_see("Sign-in code: ");
    wait_for("a terminal that hides", || (!session.echoes(), session.shown()));
    let pid = rustix::process::Pid::from_raw(i32::try_from(session.child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    wait_for("a terminal that shows again", || (session.echoes(), session.shown()));
    assert_eq!(session.end().0, 130);
    assert!(!site.config().exists());
}

#[test]
fn deleting_asks_for_the_name() {
    let site = Site::start();
    site.signed_in();
    let cluster = r#"{"id":"cls_1","name":"edge","state":"connected"}"#;
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, cluster));
    site.answer("DELETE", "/api/v1/clusters/cls_1", Reply::json(204, ""));
    let mut session = Session::start(&site, &["cluster", "delete", "edge"]);
    session.wait_to_see("Type edge to go on: ");
    session.type_in("egde\n");
    assert_eq!(session.end().0, 1);
    assert_eq!(site.count("DELETE", "/api/v1/clusters/cls_1"), 0);
    let mut session = Session::start(&site, &["cluster", "delete", "edge"]);
    session.wait_to_see("Type edge to go on: ");
    session.type_in("edge\n");
    assert_eq!(session.end().0, 0);
    assert_eq!(site.count("DELETE", "/api/v1/clusters/cls_1"), 1);
}

#[test]
fn lights_are_drawn_over_and_fit_the_terminal() {
    let site = Site::start();
    site.signed_in();
    let cluster = r#"{"id":"cls_1","name":"edge","state":"pending"}"#;
    site.answer("GET", "/api/v1/clusters/edge", Reply::json(200, cluster));
    let mut reads = 0;
    site.handle("GET", "/api/v1/clusters/cls_1/diagnosis", move |_| {
        reads += 1;
        let on = if reads > 1 { "on" } else { "off" };
        let state = if reads > 2 { "connected" } else { "pending" };
        let detail = "a detail that is much longer than sixty columns are wide, and then some";
        Reply::json(200, format!(
            r#"{{"state":"{state}","lights":[{{"stage":"reached","state":"{on}","at":"2026-11-23T18:00:00Z","source":"192.0.2.1","detail":"{detail}"}}],"attempts":[]}}"#
        ))
    });
    site.answer(
        "GET",
        "/api/v1/events",
        Reply::stream(&[(0, "event: attempt\ndata: {}\n\n"), (200, "event: attempt\ndata: {}\n\n")]),
    );
    let session = Session::start(&site, &["cluster", "connect", "edge", "--follow"]);
    session.wait_to_see("edge is connected");
    let (exit, shown) = session.end();
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains("\u{1b}[2A\u{1b}[0J"), "the light and the waiting line are drawn over: {shown:?}");
    assert!(shown.contains("\u{1b}[32m[ok]"), "{shown:?}");
    for line in shown.split("\r\n").filter(|line| line.contains("reached the controller")) {
        let visible = line
            .rsplit("\u{1b}[0J")
            .next()
            .unwrap()
            .replace("\u{1b}[32m", "")
            .replace("\u{1b}[2m", "")
            .replace("\u{1b}[0m", "");
        assert!(visible.chars().count() <= 60, "{visible:?}");
    }
}
