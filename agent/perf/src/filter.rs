//! Filters of tracepoints over sets of numbers. Pure.
//!
//! A filter is limited to one page of text (`strndup_user(arg, PAGE_SIZE)` in
//! `perf_event_set_filter`), so a long list of numbers is split over several events. No record may
//! match two of them. That is why every set is cut into pieces that exclude each other: `one_of`
//! into lists without a common member, `none_of` into ranges of the number line.

use std::collections::BTreeSet;

/// Bytes of a filter at most, below the kernel's limit of 4095 on the smallest pages.
pub const FILTER_BYTES_MAX: usize = 4000;

/// Bytes of one piece of a set; two pieces and a little more make a filter.
const PIECE_BYTES_MAX: usize = 1900;

/// A set of thread, CPU or device numbers.
pub type Numbers = BTreeSet<u32>;

/// Filters of which every record matches at most one.
pub type Filters = Vec<String>;

/// As few filters as will hold all of the pieces, which exclude each other.
pub fn joined(pieces: impl IntoIterator<Item = String>) -> Filters {
    let mut filters: Filters = Vec::new();
    for piece in pieces {
        match filters.last_mut() {
            Some(last) if last.len() + 2 + piece.len() <= FILTER_BYTES_MAX => {
                last.push_str("||");
                last.push_str(&piece);
            }
            _ => filters.push(piece),
        }
    }
    filters
}

/// Every pair of pieces, so that a record matches at most one of them.
#[must_use]
pub fn both(left: &[String], right: &[String]) -> Vec<String> {
    let mut pairs = Vec::with_capacity(left.len() * right.len());
    for left in left {
        pairs.extend(right.iter().map(|right| format!("({left}&&{right})")));
    }
    pairs
}

/// That `field` is one of `numbers`, as pieces that exclude each other; no piece if there is none.
#[must_use]
pub fn one_of(field: &str, numbers: &Numbers) -> Vec<String> {
    let term = |(first, last): (u32, u32)| match last - first {
        0 => format!("{field}=={first}"),
        _ => format!("({field}>={first}&&{field}<={last})"),
    };
    let terms: Vec<String> = ranges(numbers).into_iter().map(term).collect();
    let pieces = cut(&terms);
    pieces.into_iter().map(|piece| format!("({})", piece.join("||"))).collect()
}

/// That `field`, which is never negative, is none of `numbers`, as pieces that exclude each other.
#[must_use]
pub fn none_of(field: &str, numbers: &Numbers) -> Vec<String> {
    let ranges = ranges(numbers);
    let term = |(first, last): (u32, u32)| match last - first {
        0 => format!("{field}!={first}"),
        _ => format!("({field}<{first}||{field}>{last})"),
    };
    let terms: Vec<String> = ranges.iter().copied().map(term).collect();
    let lengths: Vec<usize> = cut(&terms).iter().map(|piece| piece.len()).collect();
    let mut pieces = Vec::new();
    let mut start = 0;
    for length in lengths {
        let end = start + length;
        // Each piece but the first starts at the first number that it excludes, and each but the
        // last ends where the next one starts.
        let mut conditions = terms[start..end].to_vec();
        if start > 0 {
            conditions.push(format!("{field}>{}", ranges[start].0));
        }
        if let Some((next, _)) = ranges.get(end) {
            conditions.push(format!("{field}<{next}"));
        }
        pieces.push(format!("({})", conditions.join("&&")));
        start = end;
    }
    if pieces.is_empty() {
        pieces.push(format!("{field}>=0"));
    }
    pieces
}

/// Cuts a list of terms into pieces that are short enough.
fn cut(terms: &[String]) -> Vec<&[String]> {
    let mut pieces = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (place, term) in terms.iter().enumerate() {
        // 2 for the operator, and room for the limits that `none_of` adds.
        if bytes + term.len() + 2 > PIECE_BYTES_MAX - 60 {
            pieces.push(&terms[start..place]);
            (start, bytes) = (place, 0);
        }
        bytes += term.len() + 2;
    }
    if start < terms.len() {
        pieces.push(&terms[start..]);
    }
    pieces
}

/// The numbers as ranges, first and last included. Threads that a VMM makes at its start have
/// numbers in a row, so this shortens filters, and their evaluation, where it matters.
fn ranges(numbers: &Numbers) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}
