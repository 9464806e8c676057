//! What is looked at, and how: a minute of seconds, which of them is shown, and what keys change of that. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::cmp::Reverse;
use std::collections::VecDeque;
use vslice_core::text::Letters;
use vslice_report::live::Second;
use vslice_report::live::second::{VcpuSecond, VmSecond};

/// Seconds that are kept.
pub(crate) const HISTORY_MAX: usize = 60;

/// By what vCPUs are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// As they were asked for.
    Vm,
    Waiting,
    Running,
    WorstWait,
    Locks,
    Steal,
}

impl Sort {
    const ALL: [Sort; 6] =
        [Sort::Vm, Sort::Waiting, Sort::Running, Sort::WorstWait, Sort::Locks, Sort::Steal];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Sort::Vm => "VM",
            Sort::Waiting => "waiting",
            Sort::Running => "running",
            Sort::WorstWait => "worst wait",
            Sort::Locks => "locks",
            Sort::Steal => "steal",
        }
    }

    fn next(self) -> Sort {
        let place = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or_default();
        Sort::ALL[(place + 1) % Sort::ALL.len()]
    }

    fn key(self, vcpu: &VcpuSecond) -> u64 {
        match self {
            Sort::Vm => 0,
            Sort::Waiting => vcpu.waiting_ns + vcpu.throttled_ns,
            Sort::Running => vcpu.running_ns,
            Sort::WorstWait => vcpu.worst_wait.as_ref().map_or(0, |wait| wait.length_ns),
            Sort::Locks => vcpu.lock_waits.total_ns,
            Sort::Steal => vcpu.steal_ns.unwrap_or(0),
        }
    }
}

/// What a key asks for that the view cannot do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    None,
    Quit,
    Suspend,
    /// To begin writing, or to end it.
    Write,
}

/// A vCPU by its places: the VM's, and its own there.
pub(crate) type Row = (usize, usize);

/// The state of the screen.
#[derive(Debug)]
pub(crate) struct View {
    seconds: VecDeque<Second>,
    /// How many seconds before the latest the one is that is shown.
    back: usize,
    is_paused: bool,
    pub(crate) sort: Sort,
    /// Which row of those that are shown is chosen.
    chosen: Row,
    /// The only VM that is shown, if it is only one.
    only: Option<usize>,
    pub(crate) letters: Letters,
    pub(crate) has_colour: bool,
    /// What is said at the bottom.
    pub(crate) status: String,
    /// The run directory that is written, if one is.
    pub(crate) writes: Option<String>,
}

impl View {
    pub(crate) fn new(letters: Letters, has_colour: bool) -> View {
        View {
            seconds: VecDeque::new(),
            back: 0,
            is_paused: false,
            sort: Sort::Vm,
            chosen: (0, 0),
            only: None,
            letters,
            has_colour,
            status: String::new(),
            writes: None,
        }
    }

    /// A second is over.
    pub(crate) fn push(&mut self, second: Second) {
        self.seconds.push_back(second);
        if self.seconds.len() > HISTORY_MAX {
            self.seconds.pop_front();
        }
        // What is looked at stays, until it is a minute old.
        if self.is_paused || self.back > 0 {
            self.back = (self.back + 1).min(self.seconds.len() - 1);
        }
    }

    /// The second that is shown, if there is one yet.
    pub(crate) fn shown(&self) -> Option<&Second> {
        self.seconds.iter().rev().nth(self.back)
    }

    /// How many seconds ago it was.
    pub(crate) fn back(&self) -> usize {
        self.back
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The vCPUs that are shown, sorted.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let Some(second) = self.shown() else { return Vec::new() };
        let vms = second.vms.iter().enumerate();
        let vms = vms.filter(|(place, _)| self.only.is_none_or(|only| only == *place));
        let mut rows: Vec<(Row, &VcpuSecond)> = vms
            .flat_map(|(vm, second)| {
                second.vcpus.iter().enumerate().map(move |(place, vcpu)| ((vm, place), vcpu))
            })
            .collect();
        rows.sort_by_key(|(_, vcpu)| Reverse(self.sort.key(vcpu)));
        rows.into_iter().map(|(row, _)| row).collect()
    }

    /// The chosen vCPU, or the first that is shown.
    pub(crate) fn chosen(&self) -> Option<(Row, &VmSecond, &VcpuSecond)> {
        let rows = self.rows();
        let row = rows.iter().find(|row| **row == self.chosen).or(rows.first())?;
        let vm = self.shown()?.vms.get(row.0)?;
        Some((*row, vm, vm.vcpus.get(row.1)?))
    }

    /// A figure of a vCPU over the minute, the latest last.
    pub(crate) fn history(&self, row: Row, figure: impl Fn(&VcpuSecond) -> u64) -> Vec<u64> {
        let of = |second: &Second| Some(figure(second.vms.get(row.0)?.vcpus.get(row.1)?));
        self.seconds.iter().map(|second| of(second).unwrap_or(0)).collect()
    }

    /// A key was pressed.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Wish {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Wish::Quit,
            KeyCode::Char('z') if is_control => return Wish::Suspend,
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('w') => return Wish::Write,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char(' ' | 'p') => self.is_paused = !self.is_paused,
            KeyCode::Char('v') | KeyCode::Enter => {
                self.only = match self.only {
                    None => self.chosen().map(|((vm, _), ..)| vm),
                    Some(_) => None,
                };
            }
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::Left | KeyCode::Char('h') => {
                self.back = (self.back + 1).min(self.seconds.len().saturating_sub(1));
            }
            KeyCode::Right | KeyCode::Char('l') => self.back = self.back.saturating_sub(1),
            KeyCode::End | KeyCode::Char('0') => (self.back, self.is_paused) = (0, false),
            _ => {}
        }
        Wish::None
    }

    fn choose(&mut self, by: isize) {
        let rows = self.rows();
        let place = rows.iter().position(|row| *row == self.chosen).unwrap_or_default();
        let place = place.saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.chosen = rows.get(place).copied().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_report::live::example::second;

    fn view(count: u64) -> View {
        let mut view = View::new(Letters::Unicode, true);
        (0..count).for_each(|number| view.push(second(number)));
        view
    }

    fn press(view: &mut View, code: KeyCode) -> Wish {
        view.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn press_times(view: &mut View, code: KeyCode, count: usize) {
        for _ in 0..count {
            press(view, code);
        }
    }

    fn shown(view: &View) -> u64 {
        view.shown().unwrap().number
    }

    #[test]
    fn a_minute_is_kept_and_scrolled_in() {
        let mut view = view(100);
        assert_eq!((view.seconds.len(), shown(&view)), (HISTORY_MAX, 99));
        press(&mut view, KeyCode::Left);
        press(&mut view, KeyCode::Left);
        assert_eq!(shown(&view), 97);
        view.push(second(100));
        assert_eq!((shown(&view), view.back()), (97, 3), "what is looked at stays");
        press_times(&mut view, KeyCode::Left, 100);
        assert_eq!(shown(&view), 41);
        press(&mut view, KeyCode::End);
        assert_eq!(shown(&view), 100);
    }

    #[test]
    fn a_pause_holds_what_is_shown() {
        let mut view = view(2);
        press(&mut view, KeyCode::Char(' '));
        view.push(second(2));
        assert_eq!((shown(&view), view.is_paused()), (1, true));
        press(&mut view, KeyCode::Char(' '));
        press(&mut view, KeyCode::Right);
        assert_eq!(shown(&view), 2);
    }

    #[test]
    fn vcpus_are_sorted_chosen_and_told_of_one_vm_alone() {
        let mut view = view(1);
        assert_eq!(view.rows(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
        press_times(&mut view, KeyCode::Char('s'), 2);
        assert_eq!((view.sort, view.rows()[0]), (Sort::Running, (0, 1)));
        assert_eq!(view.chosen().unwrap().0, (0, 0), "it stays chosen");
        press_times(&mut view, KeyCode::Up, 9);
        press_times(&mut view, KeyCode::Down, 3);
        let ((vm, _), of, _) = view.chosen().unwrap();
        let name = of.name.clone();
        press(&mut view, KeyCode::Char('v'));
        assert!(view.rows().iter().all(|row| row.0 == vm), "{name}");
        press(&mut view, KeyCode::Char('v'));
        assert_eq!(view.rows().len(), 5);
        for _ in 0..4 {
            press(&mut view, KeyCode::Char('s'));
        }
        assert_eq!(view.sort, Sort::Vm, "round and round");
    }

    #[test]
    fn keys_ask_for_what_is_not_the_views() {
        let mut view = View::new(Letters::Ascii, false);
        for code in [KeyCode::Up, KeyCode::Down, KeyCode::Left, KeyCode::Char('v')] {
            assert_eq!(press(&mut view, code), Wish::None, "with nothing to show yet");
        }
        assert_eq!(press(&mut view, KeyCode::Char('w')), Wish::Write);
        assert_eq!(press(&mut view, KeyCode::Char('q')), Wish::Quit);
        let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!((view.key(control('c')), view.key(control('z'))), (Wish::Quit, Wish::Suspend));
    }
}
