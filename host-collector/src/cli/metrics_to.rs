//! Where metrics go: into a file, or to whoever asks at an address.

use super::output_file::OutputFile;
use crate::top::listener::{Listener, Page};
use anyhow::Context;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use vslice_export::prometheus::Metrics;
use vslice_report::live::Second;

/// As it was asked for: whatever is no address is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MetricsTo {
    File(PathBuf),
    Address(SocketAddr),
}

impl FromStr for MetricsTo {
    type Err = String;

    fn from_str(text: &str) -> Result<MetricsTo, String> {
        let here = |port: &str| Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?)));
        let address = text.parse().ok().or_else(|| here(text.strip_prefix("localhost:")?));
        match address {
            Some(address) => Ok(MetricsTo::Address(address)),
            None if text.is_empty() => Err("it names neither a file nor an address".to_owned()),
            None => Ok(MetricsTo::File(text.into())),
        }
    }
}

/// Metrics, and where they go.
#[derive(Debug)]
pub(super) struct ExposedMetrics {
    metrics: Metrics,
    to: Exposed,
}

#[derive(Debug)]
enum Exposed {
    File(PathBuf),
    /// The server ends with this.
    Served(Page, Listener),
}

impl MetricsTo {
    /// Makes them available, without any second yet.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) fn open(&self) -> anyhow::Result<ExposedMetrics> {
        let metrics = Metrics::default();
        let to = match self {
            MetricsTo::File(path) => {
                write(path, &metrics)?;
                Exposed::File(path.clone())
            }
            MetricsTo::Address(address) => {
                let page: Page = Arc::new(Mutex::new(metrics.text().into()));
                let listener = Listener::start(*address, Arc::clone(&page))
                    .with_context(|| format!("cannot serve metrics at {address}"))?;
                Exposed::Served(page, listener)
            }
        };
        Ok(ExposedMetrics { metrics, to })
    }
}

impl ExposedMetrics {
    /// Takes the next second.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn add(&mut self, second: &Second) -> anyhow::Result<()> {
        self.metrics.add(second);
        match &self.to {
            Exposed::File(path) => write(path, &self.metrics),
            Exposed::Served(page, _) => {
                *page.lock().unwrap_or_else(PoisonError::into_inner) = self.metrics.text().into();
                Ok(())
            }
        }
    }

    /// Where they are served, if they are.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match &self.to {
            Exposed::File(_) => None,
            Exposed::Served(_, listener) => Some(listener.address()),
        }
    }
}

/// Whoever reads it finds it whole, as node_exporter's textfile collector wants.
fn write(path: &Path, metrics: &Metrics) -> anyhow::Result<()> {
    let write = || {
        let mut file = OutputFile::create(path)?;
        file.write_all(metrics.text().as_bytes())?;
        file.commit()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_report::live::example::second;

    #[test]
    fn whatever_is_no_address_is_a_file() {
        let to = |text: &str| text.parse::<MetricsTo>();
        for (text, address) in [
            ("127.0.0.1:9435", "127.0.0.1:9435"),
            ("localhost:9435", "127.0.0.1:9435"),
            ("[::1]:9435", "[::1]:9435"),
        ] {
            assert_eq!(to(text), Ok(MetricsTo::Address(address.parse().unwrap())));
        }
        for file in ["vslice.prom", "/a/b:9435", "./127.0.0.1:9435", "localhost:x", "9435"] {
            assert_eq!(to(file), Ok(MetricsTo::File(file.into())));
        }
        assert!(to("").is_err());
    }

    #[test]
    fn a_file_is_whole_at_any_time_and_grows() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("vslice.prom");
        let mut metrics = MetricsTo::File(path.clone()).open().unwrap();
        let count = || {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().filter(|line| line.starts_with("vslice_events_total ")).count()
        };
        assert_eq!(count(), 0, "no second yet");
        metrics.add(&second(0)).unwrap();
        assert_eq!(count(), 1);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1, "nothing beside it");
        assert!(MetricsTo::File(scratch.path().join("no/where")).open().is_err());
    }
}
