use super::super::Comparison;
use super::super::example::{attached, neighbour, vcpu};
use super::super::verdict::Verdict;
use super::*;
use crate::summary::example;
use vslice_core::timeline::Reason;

#[test]
fn figures_are_those_of_the_summary_by_the_second() {
    let summary = example::summary();
    let figures = VcpuFigures::all(&summary);
    let observed: Vec<&Vcpu> = summary.vcpus.iter().filter(|vcpu| vcpu.observed_ns > 0).collect();
    assert!(figures.len() == observed.len() && figures.len() > 1, "{figures:?}");
    let (figure, of) = (&figures[1], observed[1]);
    let rate = |length_ns: u64| length_ns as f64 * 1e9 / of.observed_ns as f64;
    assert_eq!((figure.vcpu, figure.run_delay), (of.vcpu, rate(of.wait_ns)));
    let first = &of.antagonists[0];
    assert_eq!(figure.ran[0], (first.thread.name.clone(), rate(first.ran_ns)));
    assert_eq!(VcpuFigures::all(&example::sampled()), [], "no switch was recorded");
}

#[test]
fn plain_attaches_are_compared_by_vcpu() {
    let (a, b) = neighbour();
    let records = compare(&a, &b);
    let [record] = &records[..] else { panic!("{records:?}") };
    let told: Vec<(&str, Option<&str>)> =
        record.metrics.iter().map(|row| (row.metric, row.name.as_deref())).collect();
    let expected = [
        ("run_delay", None),
        ("off_cpu", Some("bql")),
        ("antagonist", Some("sh")),
        ("antagonist", Some("web1 main loop")),
    ];
    assert_eq!(told, expected);
    let run_delay = &record.metrics[0].compared;
    assert_eq!((run_delay.a.mean, run_delay.b.mean), (Some(5.1e6), Some(702e6)));
    assert_eq!(record.metrics[2].compared.a.mean, None, "A does not list sh, and not everybody");
}

#[test]
fn who_is_not_listed_where_everybody_is_did_not_run() {
    let mut of = vcpu("web1", 1e6, &[], &[("sh", 1e6)]);
    let npm = VcpuMetric::Ran("npm".to_owned());
    assert_eq!(of.get(&npm), None);
    of.unlisted_max = 0.0;
    assert_eq!(of.get(&npm), Some(0.0));
}

#[test]
fn what_hardly_is_there_is_not_told() {
    let reason = OffReason::Left(Reason::Bql);
    let told = |figure| {
        let side = |name| attached(name, &[vcpu("web1", 1e6, &[(reason, figure)], &[])]);
        compare(&side("a"), &side("b"))[0].metrics.iter().any(|row| row.metric == "off_cpu")
    };
    assert!(told(REPORTED_NS_PER_S_MIN) && !told(REPORTED_NS_PER_S_MIN * 0.99));
}

#[test]
fn a_single_vm_is_the_same_under_another_name_and_several_are_not() {
    let web = |name: &str| vcpu(name, 1e6, &[], &[]);
    let compared = |b: &Side| compare(&attached("a", &[web("web1")]), b).len();
    assert_eq!(compared(&attached("b", &[web("web1")])), 1);
    assert_eq!(compared(&attached("b", &[web("web2")])), 1);
    let mut two = attached("b", &[web("web2")]);
    two.runs[0].vcpus.push(web("web3"));
    assert_eq!(compared(&two), 0);
}

#[test]
fn repeats_decide_a_vcpus_figures_too() {
    let side = |name: &str, base: f64| {
        let runs = [1.0, 1.01, 0.99, 1.02].map(|factor| vcpu("web1", base * factor, &[], &[]));
        attached(name, &runs)
    };
    let comparison = Comparison::new(side("a", 5e6), side("b", 7e8));
    assert_eq!(comparison.vcpus[0].metrics[0].compared.verdict, Verdict::Higher);
}

#[test]
fn runs_that_list_somebody_do_not_stand_for_those_that_do_not() {
    let quiet = attached("a", &vec![vcpu("web1", 5e6, &[], &[]); 4]);
    let mut busy = vec![vcpu("web1", 500e6, &[], &[("sh", 400e6)]); 4];
    busy[2] = vcpu("web1", 500e6, &[], &[]);
    let comparison = Comparison::new(quiet, attached("b", &busy));
    let metrics = &comparison.vcpus[0].metrics;
    let sh = metrics.iter().find(|row| row.name.as_deref() == Some("sh")).unwrap();
    assert_eq!((sh.compared.b.mean, &sh.compared.b.values), (None, &vec![400e6; 3]));
    assert_eq!((&sh.compared.b.runs, sh.at_least()), (&vec![0, 1, 3], [None, Some(300e6)]));
    let page = crate::compare::text::render(&comparison, crate::summary::Style::PLAIN);
    let row = page.lines().find(|line| line.contains("while sh ran")).unwrap();
    assert!(row.contains(" -  at least 300 ms/s  "), "{page}");
}
