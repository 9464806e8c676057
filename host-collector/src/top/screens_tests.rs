//! The screen at two sizes, as it was; and what names cannot do to it.

use super::draw::draw;
use super::view::View;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use vslice_core::text::{Letters, columns};
use vslice_report::live::example::second;

fn screen(view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content.chunks(usize::from(width));
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    lines.map(line).collect()
}

fn view(letters: Letters) -> View {
    let mut view = View::new(letters, true);
    (0..40).for_each(|number| view.push(second(number)));
    view
}

fn is_as_it_was(name: &str, screen: &str) {
    let golden = format!("{}/src/top/{name}.golden", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("VSLICE_BLESS").is_some() {
        std::fs::write(&golden, screen).unwrap();
    }
    assert_eq!(screen, std::fs::read_to_string(&golden).unwrap());
}

#[test]
fn eighty_by_twenty_four() {
    is_as_it_was("screen-80x24", &screen(&view(Letters::Ascii), 80, 24));
}

#[test]
fn the_document_shows_the_screen_as_it_is() {
    let document = include_str!("../../../docs/top.md");
    assert!(document.contains(&format!("```\n{}```\n", include_str!("screen-80x24.golden"))));
}

#[test]
fn two_hundred_by_sixty() {
    let mut view = view(Letters::Unicode);
    view.writes = Some("runs/top-1795471866".to_owned());
    for code in [KeyCode::Char('s'), KeyCode::Down, KeyCode::Left, KeyCode::Left] {
        view.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    is_as_it_was("screen-200x60", &screen(&view, 200, 60));
}

#[test]
fn no_size_is_too_small() {
    let (view, empty) = (view(Letters::Unicode), View::new(Letters::Unicode, false));
    for (width, height) in [(1, 1), (2, 30), (30, 2), (79, 5), (500, 9)] {
        screen(&view, width, height);
        screen(&empty, width, height);
    }
}

#[test]
fn the_chosen_vcpu_is_always_shown_and_how_many_more_there_are() {
    let mut view = view(Letters::Ascii);
    assert!(screen(&view, 80, 16).contains(" +2 more"));
    for _ in 0..4 {
        view.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
    }
    let last = screen(&view, 80, 16);
    assert!(last.contains("--- web1 vCPU1") && last.contains("\nweb1         1"), "{last}");
}

#[test]
fn names_are_text_of_the_width_that_they_have() {
    let mut second = second(0);
    second.vms[0].name = "\u{1b}[2J\u{202e}\u{6771}\u{4eac}\u{6771}\u{4eac}\u{6771}".to_owned();
    let mut view = View::new(Letters::Unicode, true);
    view.push(second);
    let shown = screen(&view, 80, 24);
    assert!(shown.chars().all(|letter| letter == '\n' || !letter.is_control()), "{shown}");
    assert!(!shown.contains('\u{202e}') && shown.contains("?[2J?"), "{shown}");
    assert!(shown.lines().all(|line| columns(line) <= 90), "{shown}");
}
