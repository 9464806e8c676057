//! The terminal while it is drawn on: whatever happens, it is given back as it was.

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use std::io::{self, Stdout};
use std::panic;
use std::sync::Once;

/// A terminal that is drawn on. It is given back when this is dropped, and before a panic is told, which ends the process
/// where panics abort.
pub(crate) struct Drawn {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Drawn {
    /// Takes it.
    ///
    /// # Errors
    /// When it cannot be drawn on; it is as it was then.
    pub(crate) fn take() -> io::Result<Drawn> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let told = panic::take_hook();
            panic::set_hook(Box::new(move |what| {
                give_back();
                told(what);
            }));
        });
        enter().inspect_err(|_| give_back())?;
        let terminal =
            Terminal::new(CrosstermBackend::new(io::stdout())).inspect_err(|_| give_back())?;
        Ok(Drawn { terminal })
    }

    pub(crate) fn terminal(&mut self) -> &mut Terminal<CrosstermBackend<Stdout>> {
        &mut self.terminal
    }

    /// Gives it back while `work` is done, and takes it again.
    ///
    /// # Errors
    /// When it cannot be taken again.
    pub(crate) fn without(&mut self, work: impl FnOnce()) -> io::Result<()> {
        give_back();
        work();
        enter()?;
        self.terminal.clear()
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// As far as it is there still.
fn give_back() {
    let _it_may_be_gone = execute!(io::stdout(), Show, LeaveAlternateScreen);
    let _it_may_be_gone = disable_raw_mode();
}
