//! A server of metrics: what it answers is read only, and whoever asks is bounded in time, bytes and number.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Who is answered at a time; more are turned away.
const CONNECTIONS_MAX: usize = 8;
/// Bytes of a request that are read.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long a request may take, and its answer after it.
const WITHIN: Duration = Duration::from_secs(2);
/// Between two looks for somebody who asks.
const NAP: Duration = Duration::from_millis(50);

/// What is answered, as it is now.
pub(crate) type Page = Arc<Mutex<Arc<str>>>;

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens there, and answers with the page.
    ///
    /// # Errors
    /// Why nobody can listen there.
    pub(crate) fn start(address: SocketAddr, page: Page) -> std::io::Result<Listener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::Builder::new()
            .name("vslice-metrics".into())
            .spawn(move || serve(&listener, &page, &over))?;
        Ok(Listener { address, is_over, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // ATOMICS: relaxed, because the flag stands for itself.
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn serve(listener: &TcpListener, page: &Page, is_over: &AtomicBool) {
    let connections = Arc::new(AtomicUsize::new(0));
    while !is_over.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(NAP);
            continue;
        };
        if connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        connections.fetch_add(1, Ordering::Relaxed);
        let page = Arc::clone(&page.lock().unwrap_or_else(PoisonError::into_inner));
        let (counted, count) = (Arc::clone(&connections), Arc::clone(&connections));
        let answer = move || {
            let _whoever_asked_may_be_gone = answer(stream, &page);
            counted.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("vslice-metrics".into()).spawn(answer).is_err() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn answer(mut stream: TcpStream, page: &str) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    let (status, body) = match request(&mut stream, Instant::now() + WITHIN)? {
        Ok(head) => respond(&head, page),
        Err(status) => (status, "this is no request for metrics\n"),
    };
    let deadline = Instant::now() + WITHIN;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    for mut bytes in [head.as_bytes(), body.as_bytes()] {
        while !bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            // No time at all would mean no limit.
            stream.set_write_timeout(Some(left.max(Duration::from_millis(1))))?;
            let count = stream.write(bytes)?;
            bytes = &bytes[count..];
            if left.is_zero() || count == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The head of a request, or with which status one is refused that does not end in time or within what is read.
fn request(
    stream: &mut TcpStream,
    deadline: Instant,
) -> std::io::Result<Result<String, &'static str>> {
    const BAD: &str = "400 Bad Request";
    const LATE: &str = "408 Request Timeout";
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(String::from_utf8(head).map_err(|_not_text| BAD));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(LATE));
        }
        if head.len() >= REQUEST_BYTES_MAX {
            return Ok(Err(BAD));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(Err(BAD)),
            Ok(count) => head.extend_from_slice(&bytes[..count]),
            // Which of the two it is depends on the system.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Err(LATE));
            }
            Err(error) => return Err(error),
        }
    }
}

fn respond<'a>(head: &str, page: &'a str) -> (&'static str, &'a str) {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        (Some("GET"), "/metrics") => ("200 OK", page),
        (Some("GET"), _) => ("404 Not Found", "the metrics are at /metrics\n"),
        _ => ("405 Method Not Allowed", "only GET is answered\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Listener {
        let page: Page = Arc::new(Mutex::new("vslice_x 1\n".into()));
        Listener::start(([127, 0, 0, 1], 0).into(), page).unwrap()
    }

    fn ask(listener: &Listener, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(listener.address()).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // One that is turned away half-way may be reset.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn metrics_are_read_and_nothing_else() {
        let listener = listener();
        let answer = ask(&listener, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nvslice_x 1\n") && answer.contains("version=0.0.4"));
        for (request, status) in [
            (&b"GET /../etc/passwd HTTP/1.1\r\n\r\n"[..], "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"\xff\xfe\r\n\r\n", "400"),
        ] {
            let answer = ask(&listener, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }

    #[test]
    fn whoever_says_too_much_or_nothing_is_let_go() {
        let listener = listener();
        let endless = vec![b'x'; REQUEST_BYTES_MAX + 4096];
        let answer = ask(&listener, &endless);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        // While as many as are answered say nothing, others are turned away, and later answered again.
        let silent: Vec<TcpStream> = (0..CONNECTIONS_MAX + 1)
            .map(|_| TcpStream::connect(listener.address()).unwrap())
            .collect();
        let answers = silent.into_iter().map(|mut stream| {
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        });
        let (turned_away, late): (Vec<_>, Vec<_>) =
            answers.partition(|answer: &Vec<u8>| answer.is_empty());
        // The one that said too much may still count as answered.
        let counts = (turned_away.len(), late.len());
        assert!(counts.0 >= 1 && counts.1 >= CONNECTIONS_MAX - 1, "{counts:?}");
        assert!(late.iter().all(|answer| answer.starts_with(b"HTTP/1.1 408 ")));
        let answer = ask(&listener, b"GET /metrics HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
