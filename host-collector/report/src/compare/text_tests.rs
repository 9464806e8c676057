//! The pages, byte for byte; see `summary/text/README.md` for how they are written anew.

use super::super::example;
use super::*;
use std::path::Path;

const PLAIN: Style = Style::PLAIN;

fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/compare").join(name);
    if std::env::var_os("VSLICE_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(text == golden, "differs from {name}; VSLICE_BLESS=1 accepts this:\n{text}");
}

#[test]
fn the_page_of_a_claim_that_holds() {
    let (a, b) = example::held();
    assert_golden("holds.golden", &render(&Comparison::new(a, b), PLAIN));
}

#[test]
fn the_page_of_runs_that_should_not_be_compared() {
    assert_golden("doubtful.golden", &render(&example::doubtful(), PLAIN));
}

#[test]
fn the_page_of_one_run_on_a_side() {
    let page = render(&example::thin(), PLAIN);
    assert_golden("thin.golden", &page);
    assert!(!page.contains("NaN") && !page.contains("inf"));
}

#[test]
fn the_page_of_plain_attaches() {
    let (a, b) = example::neighbour();
    assert_golden("attached.golden", &render(&Comparison::new(a, b), PLAIN));
}

#[test]
fn runs_that_tell_nothing_have_no_table() {
    let mut empty = example::held().0;
    for run in &mut empty.runs {
        run.values.clear();
        run.vcpus.clear();
    }
    let page = render(&Comparison::new(empty.clone(), empty), PLAIN);
    assert!(
        page.contains("A and B have nothing in common") && !page.contains("95 % interval"),
        "{page}"
    );
}

#[test]
fn equal_runs_make_an_equal_page() {
    assert_eq!(render(&example::doubtful(), PLAIN), render(&example::doubtful(), PLAIN));
}
