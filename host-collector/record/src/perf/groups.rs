//! Control groups: their paths are said once, when a thread of theirs is seen first.
//!
//! perf tells of each group that is made during the run, with its number and its path, before any thread can be
//! in it (`perf_event_cgroup`, since 5.7); those that were there before are listed at the start. So also a
//! group that lives for milliseconds has its path. Where perf does not tell, groups are listed again when one
//! is seen that is not known, but not often: it takes milliseconds on a large host.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use vslice_core::text::harmless;
use vslice_host::control_groups::{self, GroupNames};

/// Groups that are kept at most; the paths of more are not said.
const GROUPS_MAX: usize = 1 << 16;

/// Groups are listed at most this often.
const LISTED_EVERY: Duration = Duration::from_secs(1);

/// How often the rings are read until a group that is not there any more has no path: the record of its making
/// may be in a ring that was read before the one that names it.
const READS_MIN: u32 = 2;

/// What is known of groups and what of it was said.
#[derive(Debug)]
pub(super) struct Groups {
    /// `None` where groups have no numbers.
    names: Option<GroupNames>,
    paths: HashMap<u64, String>,
    said: HashSet<u64>,
    waiting: Vec<Waiting>,
    listed: Option<Instant>,
    /// Whether a host has so many that a list of them was cut: who is not on it may be there still.
    is_cut: bool,
}

/// A group that was seen and has no path yet.
#[derive(Debug)]
struct Waiting {
    number: u64,
    reads: u32,
    was_listed: bool,
}

impl Groups {
    /// Lists those that there are.
    pub(super) fn new(names: Option<GroupNames>) -> Groups {
        let paths = names.as_ref().map(GroupNames::by_number).unwrap_or_default();
        let listed = names.is_some().then(Instant::now);
        let is_cut = paths.len() >= control_groups::GROUPS_MAX;
        Groups { names, paths, said: HashSet::new(), waiting: Vec::new(), listed, is_cut }
    }

    /// A group was made.
    pub(super) fn made(&mut self, number: u64, path: &[u8]) {
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        if self.paths.len() < GROUPS_MAX {
            self.paths.insert(number, harmless(&String::from_utf8_lossy(path)));
        }
    }

    /// A thread of this group was seen.
    pub(super) fn seen(&mut self, number: u64) {
        if self.said.len() < GROUPS_MAX && self.said.insert(number) {
            self.waiting.push(Waiting { number, reads: 0, was_listed: false });
        }
    }

    /// What can be said now that the rings were read: numbers and paths, `None` of a group that was gone before
    /// it was named. At the end of the run everything that is known is said.
    pub(super) fn settle(&mut self, is_end: bool) -> Vec<(u64, Option<String>)> {
        let mut said = Vec::new();
        self.say_known(&mut said);
        let may_list =
            || self.listed.is_none_or(|listed| is_end || listed.elapsed() >= LISTED_EVERY);
        if self.waiting.iter().any(|group| !group.was_listed) && may_list() {
            self.list();
            self.say_known(&mut said);
        }
        self.waiting.iter_mut().for_each(|group| group.reads += 1);
        let is_gone =
            |group: &mut Waiting| is_end || (group.was_listed && group.reads >= READS_MIN);
        let is_cut = self.is_cut;
        let gone = self.waiting.extract_if(.., is_gone).filter(|_| !is_cut);
        said.extend(gone.map(|group| (group.number, None)));
        said
    }

    fn say_known(&mut self, said: &mut Vec<(u64, Option<String>)>) {
        let paths = &self.paths;
        let known = self.waiting.extract_if(.., |group| paths.contains_key(&group.number));
        said.extend(known.map(|group| (group.number, paths.get(&group.number).cloned())));
    }

    fn list(&mut self) {
        let found = self.names.as_ref().map(GroupNames::by_number).unwrap_or_default();
        self.is_cut |= found.len() >= control_groups::GROUPS_MAX;
        // A number that perf has told of is not anybody else's: kernfs counts them up.
        for (number, path) in found {
            self.paths.entry(number).or_insert(path);
        }
        self.listed = Some(Instant::now());
        self.waiting.iter_mut().for_each(|group| group.was_listed = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> Option<String> {
        Some(path.to_owned())
    }

    #[test]
    fn a_group_is_said_once_and_also_if_it_was_made_in_a_ring_that_is_read_later() {
        let mut groups = Groups::new(None);
        groups.made(5, b"/a.scope\0\0\0\0");
        groups.seen(5);
        groups.seen(6);
        assert_eq!(groups.settle(false), [(5, path("/a.scope"))]);
        groups.made(6, b"/b\x1b[2J.scope\0");
        groups.seen(5);
        assert_eq!(groups.settle(false), [(6, path("/b?[2J.scope"))]);
        assert_eq!(groups.settle(true), []);
    }

    #[test]
    fn a_group_that_nobody_knows_is_gone_and_that_is_said_too() {
        let mut groups = Groups::new(None);
        groups.seen(9);
        assert_eq!(groups.settle(false), [], "the next read may tell");
        assert_eq!(groups.settle(false), [(9, None)]);
        groups.seen(10);
        assert_eq!(groups.settle(true), [(10, None)], "nothing comes after the end");
    }

    #[test]
    fn where_a_list_was_cut_nobody_is_told_to_be_gone() {
        let mut groups = Groups { is_cut: true, ..Groups::new(None) };
        groups.made(8, b"/a\0");
        groups.seen(8);
        groups.seen(9);
        assert_eq!(groups.settle(true), [(8, path("/a"))]);
        assert!(groups.waiting.is_empty());
    }

    #[test]
    fn groups_are_bounded() {
        let mut groups = Groups::new(None);
        for number in 0..GROUPS_MAX as u64 + 9 {
            groups.made(number, b"/x\0");
            groups.seen(number);
        }
        assert_eq!((groups.paths.len(), groups.settle(true).len()), (GROUPS_MAX, GROUPS_MAX));
    }
}
