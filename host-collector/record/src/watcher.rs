//! What a run shows while it goes on.

use crate::guest::live::LiveFigures;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write;
use std::time::{Duration, Instant};
use vslice_core::text::Letters;

/// Plain lines of progress come this far apart.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Is told how a run goes on.
pub trait Watcher {
    /// The run has come to a new stage, said as `booting two guests`.
    fn stage(&mut self, text: &str);
    /// The guests read, or observe; `expected_count` is what the readers' requests will come to, 0 if there
    /// are no readers.
    fn progress(&mut self, figures: &LiveFigures, expected_count: u64);
}

/// A watcher for a terminal: the stages, and a bar with the time left and live percentiles.
#[derive(Debug)]
pub struct BarWatcher {
    bar: ProgressBar,
    letters: Letters,
}

impl BarWatcher {
    /// Draws on standard error, which is a terminal that can go back over what it shows.
    #[must_use]
    pub fn new(letters: Letters) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(stage_style());
        bar.enable_steady_tick(Duration::from_millis(250));
        BarWatcher { bar, letters }
    }
}

/// The message is cut at the terminal's edge; its whole text stands in the line above.
fn stage_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}")
        .expect("the template is a constant")
        .tick_chars(SPINNER)
}

/// In ASCII, which every locale has; the last one is for what has ended.
const SPINNER: &str = "|/-\\ ";

impl Watcher for BarWatcher {
    fn stage(&mut self, text: &str) {
        // A bar that was counting goes on as a spinner.
        self.bar.unset_length();
        self.bar.set_style(stage_style());
        let text = self.letters.show(text);
        self.bar.set_message(text.clone());
        self.bar.println(format!("  {text}"));
    }

    fn progress(&mut self, figures: &LiveFigures, expected_count: u64) {
        if expected_count == 0 {
            if figures.observed_count > 0 {
                self.bar.set_message(observed(figures));
            }
            return;
        }
        // Before the first one there is no time left to be told.
        if figures.requests_count == 0 {
            return;
        }
        if self.bar.length() != Some(expected_count) {
            self.bar.set_length(expected_count);
            let template = "{spinner} {elapsed_precise} [{bar:28}] {human_pos}/{human_len} reads, \
                            {eta} left, {msg}";
            self.bar.set_style(
                ProgressStyle::with_template(template)
                    .expect("the template is a constant")
                    .tick_chars(SPINNER)
                    .progress_chars("=> "),
            );
            self.bar.reset_eta();
        }
        self.bar.set_position(figures.requests_count);
        self.bar.set_message(read(figures));
    }
}

impl Drop for BarWatcher {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A watcher for logs: a line for each stage, and one of progress every few seconds.
#[derive(Debug)]
pub struct LineWatcher<W> {
    out: W,
    letters: Letters,
    line_at: Option<Instant>,
}

impl<W: Write> LineWatcher<W> {
    /// Writes its lines to `out`; a line that cannot be written is not worth a run.
    #[must_use]
    pub fn new(out: W, letters: Letters) -> Self {
        LineWatcher { out, letters, line_at: None }
    }
}

impl<W: Write> Watcher for LineWatcher<W> {
    fn stage(&mut self, text: &str) {
        drop(writeln!(self.out, "vslice: {}", self.letters.show(text)));
    }

    fn progress(&mut self, figures: &LiveFigures, expected_count: u64) {
        if self.line_at.is_some_and(|at| at.elapsed() < LINE_INTERVAL) {
            return;
        }
        if expected_count == 0 && figures.observed_count == 0 {
            return;
        }
        self.line_at = Some(Instant::now());
        if expected_count == 0 {
            drop(writeln!(self.out, "vslice: {}", observed(figures)));
            return;
        }
        let done = HumanCount(figures.requests_count);
        let expected = HumanCount(expected_count);
        drop(writeln!(self.out, "vslice: {done}/{expected} reads, {}", read(figures)));
    }
}

fn observed(figures: &LiveFigures) -> String {
    format!("{} requests observed", HumanCount(figures.observed_count))
}

/// What there is to say of reads beside their count, and of what is observed meanwhile.
fn read(figures: &LiveFigures) -> String {
    let percentiles = percentiles(figures);
    if figures.observed_count == 0 {
        return percentiles;
    }
    format!("{percentiles}, {}", observed(figures))
}

/// The live percentiles, which are rough: the report's come from the clock map.
fn percentiles(figures: &LiveFigures) -> String {
    match (figures.p50_ns, figures.p99_ns) {
        (Some(p50_ns), Some(p99_ns)) => {
            format!("p50 {:.2} ms, p99 {:.2} ms", p50_ns / 1e6, p99_ns / 1e6)
        }
        _ => String::from("no percentiles yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_stages_and_do_not_flood() {
        let mut out = Vec::new();
        let mut watcher = LineWatcher::new(&mut out, Letters::Unicode);
        watcher.stage("booting two guests");
        for count in 0..1000 {
            let (p50_ns, p99_ns) = (Some(250_000.0), Some(4e6));
            let figures = LiveFigures { requests_count: count, observed_count: 0, p50_ns, p99_ns };
            watcher.progress(&figures, 16_384);
        }
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("vslice: booting two guests\n"), "{text}");
        assert!(text.contains("0/16,384 reads, p50 0.25 ms, p99 4.00 ms"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn without_a_reader_what_is_observed_is_counted() {
        let mut out = Vec::new();
        let mut watcher = LineWatcher::new(&mut out, Letters::Ascii);
        watcher.progress(&LiveFigures::default(), 0);
        watcher.progress(&LiveFigures { observed_count: 12_345, ..LiveFigures::default() }, 0);
        assert_eq!(String::from_utf8(out).unwrap(), "vslice: 12,345 requests observed\n");
    }

    #[test]
    fn beside_a_reader_what_is_observed_is_counted_too() {
        let mut out = Vec::new();
        let mut watcher = LineWatcher::new(&mut out, Letters::Ascii);
        let (p50_ns, p99_ns) = (Some(250_000.0), Some(4e6));
        let figures = LiveFigures { requests_count: 9, observed_count: 1_011, p50_ns, p99_ns };
        watcher.progress(&figures, 16_384);
        let line = "vslice: 9/16,384 reads, p50 0.25 ms, p99 4.00 ms, 1,011 requests observed\n";
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }

    #[test]
    fn a_stage_that_tells_of_a_name_is_one_harmless_line() {
        let mut out = Vec::new();
        let mut watcher = LineWatcher::new(&mut out, Letters::Ascii);
        watcher.stage("gr\u{fc}n\x1b[2J\n is ready");
        assert_eq!(String::from_utf8(out).unwrap(), "vslice: gr?n?[2J? is ready\n");
    }
}
