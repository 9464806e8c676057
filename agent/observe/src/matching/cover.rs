//! Which bios a request was made of.

use super::table::{Open, Place, Stage, Table};
use crate::event::BlockTrace;
use vslice_wire::{BlockOperation, ObservedFlags};

/// How many bios that begin before a sector are looked at for one that reaches beyond it. Only bios
/// that overlap make it more than one.
const BEFORE_MAX: usize = 8;

/// How much of a request the bios that were seen make up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Covered {
    /// All of it.
    Whole,
    /// Some of it.
    Part,
    /// Nothing.
    Nothing,
}

/// Finds the bios of the request that `issue` tells of.
///
/// A request is a range without gaps, and so are its bios together. A bio that reaches beyond it was
/// split, whatever the kernel says of that: the rest of it is another request, which may go first.
pub(super) fn cover(table: &Table, issue: &BlockTrace, pieces: &mut Vec<Place>) -> Covered {
    pieces.clear();
    if issue.sectors == 0 {
        let same = |(_, open): &(Place, &Open)| is_empty_alike(open, issue);
        let mut found = table.beginning_at(Stage::Waiting, issue.device, issue.sector);
        return match found.find(same) {
            Some((place, _)) => {
                pieces.push(place);
                Covered::Whole
            }
            None => Covered::Nothing,
        };
    }
    let end = issue.sector.saturating_add(issue.sectors.into());
    if issue.rwbs.operation == BlockOperation::Discard && ranges(table, issue, pieces) {
        return Covered::Whole;
    }
    pieces.clear();
    let mut position = issue.sector;
    let mut has_gap = false;
    while position < end {
        if let Some((place, open)) = piece_at(table, issue, position, end) {
            pieces.push(place);
            position = open.end;
            continue;
        }
        has_gap = true;
        let mut next = table.beginning_within(Stage::Waiting, issue.device, position, end);
        match next.find(|(_, open)| open.operation == issue.rwbs.operation && open.end > open.start)
        {
            Some((_, open)) => position = open.start,
            None => break,
        }
    }
    match (pieces.is_empty(), has_gap) {
        (true, _) => Covered::Nothing,
        (false, true) => Covered::Part,
        (false, false) => Covered::Whole,
    }
}

fn is_empty_alike(open: &Open, issue: &BlockTrace) -> bool {
    open.operation == issue.rwbs.operation && open.start == open.end
}

/// The bio from which the request has its sector at `position`.
///
/// One that begins there is taken before one that reaches there. Of several, the one that ends where
/// the request ends; then the longest within; then the shortest beyond.
fn piece_at<'a>(
    table: &'a Table,
    issue: &BlockTrace,
    position: u64,
    end: u64,
) -> Option<(Place, &'a Open)> {
    let is_alike = |open: &Open| open.operation == issue.rwbs.operation && open.end > open.start;
    let rank = |open: &Open| match open.end {
        to if to == end => (0, 0),
        to if to < end => (1, end - to),
        to => (2, to - end),
    };
    let beginning = table.beginning_at(Stage::Waiting, issue.device, position);
    let best = beginning.filter(|(_, open)| is_alike(open)).min_by_key(|(_, open)| rank(open));
    best.or_else(|| {
        let before = table.beginning_before(Stage::Waiting, issue.device, position);
        before.take(BEFORE_MAX).find(|(_, open)| is_alike(open) && open.end > position)
    })
}

/// Finds the bios of a discard of several ranges, which begins at the first one's sector, has the
/// sectors of all, and of which the kernel says no more (linux: block/blk-merge.c,
/// `bio_attempt_discard_merge`). Bios are added to it as they are queued, so that they are the oldest
/// of its thread after the first that together are as long.
fn ranges(table: &Table, issue: &BlockTrace, pieces: &mut Vec<Place>) -> bool {
    let alike = |open: &Open| open.operation == BlockOperation::Discard && open.end > open.start;
    let length = |open: &Open| open.end - open.start;
    let whole = u64::from(issue.sectors);
    let beginning = table.beginning_at(Stage::Waiting, issue.device, issue.sector);
    let best = beginning
        .filter(|(_, open)| alike(open) && length(open) <= whole)
        .min_by_key(|(_, open)| whole - length(open));
    let Some((place, first)) = best else { return false };
    pieces.push(place);
    let mut left = whole - length(first);
    if left == 0 {
        return true;
    }
    let may_follow = |open: &Open| {
        alike(open)
            && open.task == first.task
            && open.id > first.id
            && !open.flags.contains(ObservedFlags::REQUEUED)
    };
    let others = table.of_device(Stage::Waiting, issue.device);
    let mut others: Vec<(Place, &Open)> = others.filter(|(_, open)| may_follow(open)).collect();
    others.sort_unstable_by_key(|(_, open)| open.id);
    for (place, open) in others {
        if length(open) <= left {
            left -= length(open);
            pieces.push(place);
        }
    }
    left == 0
}
