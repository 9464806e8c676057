//! Which of the block layer's events the kernel is asked for, as tracepoint filters. Pure.

use std::collections::BTreeSet;
use vslice_perf::filter::{Filters, Numbers, both, joined, one_of};

/// Drivers that are left out by a filter; there are some thirty without devices.
const MAJORS_MAX: usize = 32;

/// Which devices' events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those of these numbers only.
    Only(Numbers),
    /// All but those of these drivers.
    AllBut(BTreeSet<u32>),
}

impl Wanted {
    /// As filters of which a record matches at most one; `condition` is what it has to match beside.
    pub(super) fn filters(&self, condition: Option<&str>) -> Vec<Option<String>> {
        let pieces = match self {
            Wanted::Only(numbers) => one_of("dev", numbers),
            Wanted::AllBut(majors) => all_but(majors).into_iter().collect(),
        };
        let filters: Filters = match (condition, pieces.is_empty()) {
            (None, _) => joined(pieces),
            (Some(condition), true) => vec![condition.to_owned()],
            (Some(condition), false) => joined(both(&[condition.to_owned()], &pieces)),
        };
        if filters.is_empty() { vec![None] } else { filters.into_iter().map(Some).collect() }
    }
}

/// `None` if there is nothing to leave out.
fn all_but(majors: &BTreeSet<u32>) -> Option<String> {
    let first = |major: u64| major << 20;
    let term = |major: u64| format!("(dev<{}||dev>={})", first(major), first(major + 1));
    let terms: Vec<String> =
        majors.iter().take(MAJORS_MAX).map(|major| term((*major).into())).collect();
    (!terms.is_empty()).then(|| format!("({})", terms.join("&&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_have_these_texts() {
        let only = Wanted::Only([254 << 20, (254 << 20) + 1, 8 << 20].into());
        let two = "(dev==8388608||(dev>=266338304&&dev<=266338305))";
        assert_eq!(only.filters(None), [Some(two.to_owned())]);
        assert_eq!(only.filters(Some("error!=0")), [Some(format!("(error!=0&&{two})"))]);
        let but = Wanted::AllBut([7, 253].into());
        let rest = "((dev<7340032||dev>=8388608)&&(dev<265289728||dev>=266338304))";
        assert_eq!(but.filters(None), [Some(rest.to_owned())]);
        let all = Wanted::AllBut(BTreeSet::new());
        assert_eq!(all.filters(None), [None]);
        assert_eq!(all.filters(Some("error!=0")), [Some("error!=0".to_owned())]);
    }
}
