use super::*;
use vslice_core::units::HostNs;
use vslice_report::analyse::drawn;
use vslice_trace::manifest::Window;

#[test]
fn what_a_recorder_has_recorded_is_told_with_what_the_change_to_the_next_one_costs() {
    const S: u64 = 1_000_000_000;
    let mut manifest = drawn::manifest();
    manifest.cost.cpu_ns = 2 * S;
    manifest.window = Some(Window { start_ns: HostNs(10 * S), end_ns: Some(HostNs(310 * S)) });
    let used = Duration::from_millis(2_500);
    assert_eq!(
        told("a", &manifest, 31_200_000, Some(309 * S + S / 2), used),
        "a has 300 s, the last 500 ms of it twice, 31.2 MB; CPU time 2.50 s, of which 500 ms to begin and to end"
    );
    let last = told("a", &manifest, 31_200_000, None, used);
    assert!(last.starts_with("a has 300 s, 31.2 MB; "), "{last}");
    manifest.window = Some(Window { start_ns: HostNs(10 * S), end_ns: None });
    let killed = told("a", &manifest, 31_200_000, Some(20 * S), used);
    assert!(killed.starts_with("a has unknown how long, 31.2 MB; "), "{killed}");
}
