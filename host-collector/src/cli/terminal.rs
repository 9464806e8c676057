//! What whoever reads can be shown: the terminal's width, colours and letters.

use std::env;
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd};
use vslice_core::text::Letters;
use vslice_report::summary::Style;
use vslice_report::summary::text::{WIDTH_DEFAULT, WIDTH_MIN};

/// How a page is printed there.
pub(super) fn style(out: &(impl IsTerminal + AsFd)) -> Style {
    Surroundings::of(out).style()
}

/// Whether lines may be drawn over there again and again, as a bar of progress is.
pub(super) fn may_draw(out: &(impl IsTerminal + AsFd)) -> bool {
    Surroundings::of(out).may_draw()
}

/// Which letters the locale has.
pub(crate) fn letters() -> Letters {
    letters_of(value_of)
}

/// Of a variable of this process's environment. What is no UTF-8 is there all the same.
fn value_of(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// A text for people as it may be printed, line by line: nothing that a terminal obeys, and no letter
/// that the locale cannot show.
pub(crate) fn shown(text: &str) -> String {
    let letters = letters();
    text.split('\n').map(|line| letters.show(line)).collect::<Vec<_>>().join("\n")
}

/// What is known of where a page is printed.
#[derive(Debug, Clone, Default)]
struct Surroundings {
    is_terminal: bool,
    /// The columns of the terminal, as the kernel has them.
    window_columns: Option<u16>,
    /// `COLUMNS` of environ(7).
    columns: Option<String>,
    /// Whether `NO_COLOR` is there and not empty (<https://no-color.org>).
    refuses_colour: bool,
    term: Option<String>,
    letters: Letters,
}

impl Surroundings {
    fn of(out: &(impl IsTerminal + AsFd)) -> Self {
        let is_terminal = out.is_terminal();
        let window_columns = is_terminal.then(|| window_columns(out)).flatten();
        Surroundings { is_terminal, window_columns, ..Surroundings::told_by(value_of) }
    }

    /// What an environment says.
    fn told_by(value_of: impl Fn(&str) -> Option<String>) -> Self {
        Surroundings {
            is_terminal: false,
            window_columns: None,
            columns: value_of("COLUMNS"),
            refuses_colour: value_of("NO_COLOR").is_some_and(|value| !value.is_empty()),
            term: value_of("TERM"),
            letters: letters_of(value_of),
        }
    }

    /// Colours are for terminals that have them, to people who have not refused them.
    fn style(&self) -> Style {
        Style {
            width: self.width(),
            colour: self.may_draw() && !self.refuses_colour,
            letters: self.letters,
        }
    }

    /// The kernel knows a terminal's width; where it does not, or where the output goes to a pipe,
    /// somebody may have said what is wanted.
    fn width(&self) -> usize {
        let said = self.columns.as_ref().and_then(|columns| columns.parse::<u16>().ok());
        let known = self.window_columns.or(said).filter(|columns| *columns > 0);
        known.map_or(WIDTH_DEFAULT, usize::from).max(WIDTH_MIN)
    }

    fn may_draw(&self) -> bool {
        self.is_terminal
            && self.term.as_deref().is_some_and(|term| !term.is_empty() && term != "dumb")
    }
}

/// By locale(7): the first of these that is set and not empty decides; without any it is the locale C,
/// whose letters are ASCII.
fn letters_of(value_of: impl Fn(&str) -> Option<String>) -> Letters {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(value_of);
    let locale = set.into_iter().find(|value| !value.is_empty()).unwrap_or_default();
    let codeset = locale.split_once('.').map_or("", |(_, codeset)| codeset);
    let codeset = codeset.split('@').next().unwrap_or_default().replace('-', "");
    if codeset.eq_ignore_ascii_case("utf8") { Letters::Unicode } else { Letters::Ascii }
}

/// By ioctl_tty(2), TIOCGWINSZ; `None` where the kernel was never told.
#[expect(unsafe_code, reason = "nix has no TIOCGWINSZ")]
fn window_columns(out: &impl AsFd) -> Option<u16> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `struct winsize` to its argument, which points to one that outlives
    // the call; the descriptor is open as long as `out` is borrowed.
    let answer = unsafe { libc::ioctl(out.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal() -> Surroundings {
        Surroundings {
            is_terminal: true,
            window_columns: Some(132),
            term: Some("xterm-256color".to_owned()),
            letters: Letters::Unicode,
            ..Surroundings::default()
        }
    }

    #[test]
    fn a_terminal_is_as_wide_as_the_kernel_says() {
        let columns = |window_columns, said: Option<&str>| {
            Surroundings { window_columns, columns: said.map(str::to_owned), ..terminal() }.width()
        };
        assert_eq!(columns(Some(132), Some("80")), 132, "what a shell had exported may be old");
        assert_eq!(columns(None, Some("80")), 80);
        assert_eq!(columns(None, Some("a lot")), 100);
        assert_eq!(columns(None, Some("0")), 100);
        assert_eq!(columns(None, None), 100);
        assert_eq!(columns(Some(20), None), 60, "no page is made narrower");
    }

    #[test]
    fn a_pipe_is_100_columns_wide_unless_somebody_asks() {
        let pipe = Surroundings { is_terminal: false, window_columns: None, ..terminal() };
        assert_eq!(pipe.style(), Style { width: 100, colour: false, letters: Letters::Unicode });
        let asked = Surroundings { columns: Some("200".to_owned()), ..pipe };
        assert_eq!(asked.style().width, 200);
    }

    #[test]
    fn colour_is_for_terminals_that_have_it_and_people_who_want_it() {
        assert!(terminal().style().colour && terminal().may_draw());
        let refused = Surroundings { refuses_colour: true, ..terminal() };
        assert!(!refused.style().colour && refused.may_draw(), "a bar needs no colour");
        for term in [Some("dumb".to_owned()), Some(String::new()), None] {
            let dumb = Surroundings { term, ..terminal() };
            assert!(!dumb.style().colour && !dumb.may_draw(), "{dumb:?}");
        }
        let pipe = Surroundings { is_terminal: false, ..terminal() };
        assert!(!pipe.style().colour && !pipe.may_draw());
    }

    fn variables(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            let value = set.iter().find(|(known, _)| *known == name);
            value.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn what_people_set_is_heard() {
        let plain = |set: &[(&str, &str)]| {
            let set = [&[("TERM", "xterm"), ("LANG", "C.UTF-8"), ("COLUMNS", "80")], set].concat();
            // What was set last counts.
            let set: Vec<_> = set.into_iter().rev().collect();
            Surroundings { is_terminal: true, ..Surroundings::told_by(variables(&set)) }.style()
        };
        let style = Style { width: 80, colour: true, letters: Letters::Unicode };
        assert_eq!(plain(&[]), style);
        assert_eq!(plain(&[("NO_COLOR", "1")]), Style { colour: false, ..style });
        assert_eq!(plain(&[("NO_COLOR", "")]), style, "it is not refused");
        assert_eq!(plain(&[("TERM", "dumb")]), Style { colour: false, ..style });
        assert_eq!(plain(&[("COLUMNS", "132")]), Style { width: 132, ..style });
        assert_eq!(plain(&[("LC_ALL", "C")]), Style { letters: Letters::Ascii, ..style });
    }

    #[test]
    fn letters_are_those_of_the_first_locale_that_is_set() {
        let of = |set: &[(&str, &str)]| letters_of(variables(set));
        assert_eq!(of(&[]), Letters::Ascii);
        assert_eq!(of(&[("LANG", "C")]), Letters::Ascii);
        assert_eq!(of(&[("LANG", "C.UTF-8")]), Letters::Unicode);
        assert_eq!(of(&[("LANG", "de_DE.utf8@euro")]), Letters::Unicode);
        assert_eq!(of(&[("LANG", "de_DE.ISO-8859-1")]), Letters::Ascii);
        assert_eq!(of(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")]), Letters::Ascii);
        assert_eq!(of(&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")]), Letters::Unicode);
    }
}
