//! Options of a TCP socket that carries a tunnel.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Sent bytes that nobody acknowledges for this long end the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// The kernel probes a silent connection after this long; PINGs come earlier,
/// this is for a process that hangs.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes that the kernel takes before the network has sent the ones before: few
/// enough that a small call beside a bulk one waits microseconds, many enough to
/// keep the network busy between two wake-ups.
#[cfg(target_os = "linux")]
const NOT_SENT: u32 = 256 << 10;

/// Prepares a socket for the tunnel; both ends call it, before TLS.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.set_tcp_notsent_lowat(NOT_SENT)?;
    }
    Ok(())
}
