//! Reading the admin listener, in clear.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// Gets a path from a listener that speaks in clear; gives the body of a 200.
///
/// # Errors
/// The server is not there, or answers something else.
pub fn get_clear(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "no answer with status 200");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(invalid)?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn only_a_200_has_a_body() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nbody", Some("body")),
            ("HTTP/1.1 404 Not Found\r\n\r\nbody", None),
            ("garbage", None),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                // Closing with something unread would reset the connection.
                let mut read = Vec::new();
                while !read.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    read.extend(byte);
                }
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(get_clear(address, "/").ok().as_deref(), expected);
            server.join().unwrap();
        }
    }
}
