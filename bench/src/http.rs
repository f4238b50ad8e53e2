//! HTTP/1.1 as cheaply as it can be had: one request, one answer, keep-alive, nothing kept.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest answer, head included; a verify answer with its receipt is below 2 KiB.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// What separates head and body.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// One mTLS connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// The server is not there, or the handshake fails.
    pub async fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
        Ok(Self { stream, buffer: vec![0; MAX_ANSWER_BYTES] })
    }

    /// Sends a whole request; gives status and body of the answer.
    ///
    /// # Errors
    /// The connection broke, or what came is no bounded HTTP/1.1 answer with a length. The connection is of no use
    /// afterwards.
    pub async fn call(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let mut filled = 0;
        let head = loop {
            filled += self.read(filled).await?;
            if let Some(head) = Head::find(&self.buffer[..filled])? {
                break head;
            }
        };
        let end = head.bytes + head.body_bytes;
        if end > self.buffer.len() {
            return Err(invalid("the answer is too long"));
        }
        while filled < end {
            filled += self.read(filled).await?;
        }
        if filled > end {
            return Err(invalid("the server speaks without being asked"));
        }
        Ok((head.status, &self.buffer[head.bytes..end]))
    }

    async fn read(&mut self, filled: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.buffer[filled..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is needed of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Length of the head with the empty line.
    bytes: usize,
    body_bytes: usize,
}

impl Head {
    /// The head at the beginning of `bytes`; `None` while it is not complete.
    fn find(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(at) = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..at]).map_err(|_| invalid("a head that is not text"))?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|line| line.get(..3)?.parse().ok())
            .ok_or_else(|| invalid("no HTTP/1.1 status line"))?;
        let body_bytes = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .ok_or_else(|| invalid("an answer without a length"))?;
        if body_bytes > MAX_ANSWER_BYTES {
            return Err(invalid("the answer is too long"));
        }
        Ok(Some(Self { status, bytes: at + HEAD_END.len(), body_bytes }))
    }
}

/// Gets a path from a listener that speaks in clear; gives the body of a 200.
///
/// # Errors
/// The server is not there, or answers something else.
pub async fn get_clear(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(invalid("the admin listener answers something else than 200")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_complete() {
        let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-type: a/b\r\nContent-Length:  7\r\n\r\n{\"a\":1}";
        for cut in 0..answer.len() - 7 {
            assert_eq!(Head::find(&answer[..cut]).unwrap(), None);
        }
        let head = Head { status: 403, bytes: answer.len() - 7, body_bytes: 7 };
        assert_eq!(Head::find(answer).unwrap(), Some(head));
    }

    #[test]
    fn what_is_no_bounded_answer_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            "HTTP/1.1 20\r\ncontent-length: 1\r\n\r\n",
            "ICY 200 OK\r\ncontent-length: 1\r\n\r\n",
        ] {
            assert!(Head::find(head.as_bytes()).is_err(), "{head}");
        }
    }
}
