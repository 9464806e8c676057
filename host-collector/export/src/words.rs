//! What the forms call what a run has.

use vslice_core::join::{Attribution, NoPhase};

/// Why its parts cannot be trusted, or `attributed`, as `summary.json` calls it.
pub(crate) fn attribution(attribution: Attribution) -> &'static str {
    match attribution {
        Attribution::Attributed => "attributed",
        Attribution::Lost => "lost",
        Attribution::Moved => "moved",
        Attribution::Steered => "steered",
        Attribution::NotRecorded => "not_recorded",
        Attribution::Ambiguous => "ambiguous",
        Attribution::Forgotten => "forgotten",
    }
}

/// Why the phases of a request are unknown, as `summary.json` calls it.
pub(crate) fn no_phase(why: NoPhase) -> &'static str {
    match why {
        NoPhase::NotRecorded => "not_recorded",
        NoPhase::Lost => "lost",
        NoPhase::PageCache => "page_cache",
        NoPhase::NoIo => "no_io",
        NoPhase::Ambiguous => "ambiguous",
        NoPhase::Unmapped => "unmapped",
        NoPhase::UnknownFile => "unknown_file",
        NoPhase::NoWait => "no_wait",
        NoPhase::Unfinished => "unfinished",
        NoPhase::Contradiction => "contradiction",
        NoPhase::Forgotten => "forgotten",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_report::summary::model::AttributionName;

    #[test]
    fn reasons_are_called_as_in_the_summary() {
        for why in NoPhase::ALL {
            assert_eq!(serde_json::to_value(why).unwrap(), no_phase(why));
        }
        for of in [
            Attribution::Attributed,
            Attribution::Lost,
            Attribution::Moved,
            Attribution::Steered,
            Attribution::NotRecorded,
            Attribution::Ambiguous,
            Attribution::Forgotten,
        ] {
            let name = serde_json::to_value(AttributionName::from(of)).unwrap();
            assert_eq!(name, attribution(of));
        }
    }
}
