//! Firecracker's API: HTTP over a Unix socket, of which one request is made (firecracker/docs/getting-started.md,
//! `GET /vm/config`). It is answered between the guest's I/O, by the thread that does that too, so not while anything
//! is measured.

use crate::unix_sockets;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// A configuration has some kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// `Connection: close` alone does not make every version close.
const REQUEST: &[u8] =
    b"GET /vm/config HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n";

/// The configuration of the VM behind this socket, as JSON. All of it has to come before `timeout` is over.
///
/// # Errors
/// Those of the socket; [`io::ErrorKind::TimedOut`] or [`io::ErrorKind::WouldBlock`] if it does not answer in time, and
/// [`io::ErrorKind::InvalidData`] if it refuses or says something else.
pub fn config(socket: &Path, timeout: Duration) -> io::Result<String> {
    let deadline = Instant::now() + timeout;
    let mut stream = unix_sockets::connect(socket)?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(body) = body_of(&answer)? {
            return Ok(body);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return Err(invalid("the answer breaks off")),
            _ if answer.len() > ANSWER_BYTES_MAX => return Err(invalid("the answer has no end")),
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
}

/// The body of an answer, if all of it is there.
fn body_of(answer: &[u8]) -> io::Result<Option<String>> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    if status != Some("200") {
        return Err(invalid(&format!("it answers with status {}", status.unwrap_or("none"))));
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or_else(|| invalid("the answer has no length"))?;
    Ok(body.get(..length).map(str::to_owned))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// What comes of an answer in these pieces.
    fn asked(pieces: &'static [&'static str]) -> Result<String, String> {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("api");
        let listener = UnixListener::bind(&path).expect("scratch is writable");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it connects");
            let mut request = [0; 512];
            let length = stream.read(&mut request).expect("it asks");
            for piece in pieces {
                stream.write_all(piece.as_bytes()).expect("it listens");
            }
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let said = config(&path, Duration::from_secs(60));
        assert!(server.join().expect("it ends").starts_with("GET /vm/config HTTP/1.1\r\n"));
        said.map_err(|error| error.to_string())
    }

    #[test]
    fn an_answer_that_only_drips_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("api");
        let listener = UnixListener::bind(&path).expect("scratch is writable");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it connects");
            // Until the other end is closed, or for some seconds.
            (0..3000)
                .take_while(|_| {
                    std::thread::sleep(Duration::from_millis(1));
                    stream.write_all(b"H").is_ok()
                })
                .count()
        });
        let error = config(&path, Duration::from_millis(50)).expect_err("it has no end");
        let is_over = matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
        assert!(is_over, "{error}");
        server.join().expect("it ends");
    }

    #[test]
    fn the_configuration_is_the_body_of_the_answer() {
        let whole = asked(&[
            "HTTP/1.1 200 \r\nServer: Firecracker API\r\nContent-",
            "Length: 13\r\n\r\n{\"drives\"",
            ":[]}and more",
        ]);
        assert_eq!(whole.as_deref(), Ok("{\"drives\":[]}"));
        let refused = asked(&["HTTP/1.1 400 \r\nContent-Length: 2\r\n\r\n{}"]);
        assert_eq!(refused, Err("it answers with status 400".to_owned()));
        let torn = asked(&["HTTP/1.1 200 \r\nContent-Length: 20\r\n\r\n{}"]);
        assert_eq!(torn, Err("the answer breaks off".to_owned()));
        assert!(asked(&["HTTP/1.1 200 \r\n\r\n"]).is_err());
        assert!(config(Path::new("/nonexistent"), Duration::from_secs(1)).is_err());
    }
}
