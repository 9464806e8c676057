//! The page of drawn sides: what is in it.

use super::*;
use serde_json::{Value, json};
use vslice_report::compare::LeftOut;
use vslice_report::compare::example::{doubtful_sides, held, neighbour, side, thin_sides};

fn html_of(page: &ComparisonPage<'_>) -> String {
    let mut html = Vec::new();
    page.write(&mut html).unwrap();
    String::from_utf8(html).unwrap()
}

/// As a browser takes it: the script ends with the first end tag.
fn data_in(html: &str) -> Value {
    let (_, after) = html.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let (json, _) = after.split_once("</script").unwrap();
    serde_json::from_str(json).unwrap()
}

fn of_two(a: &Side, b: &Side) -> (Value, Comparison) {
    let comparison = Comparison::new(a.clone(), b.clone());
    let data = data_in(&html_of(&ComparisonPage::of_two(a, b, &comparison)));
    (data, comparison)
}

/// As it is read from JSON, which may take a number for one beside it.
fn read(of: &impl serde::Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(of).unwrap()).unwrap()
}

/// What is drawn of each condition is what the comparison has of its side, and the words are those of the text.
fn check(data: &Value, comparison: &Comparison) {
    assert_eq!(data["schema"], SCHEMA);
    let told = read(comparison);
    assert_eq!(data["pairs"][0]["comparison"], told);
    assert_eq!(data["text"], render(comparison, Style::PLAIN));
    let told = told["metrics"].as_array().unwrap().clone();
    assert_eq!(data["metrics"].as_array().unwrap().len(), told.len());
    for (place, metric) in told.iter().enumerate() {
        assert_eq!(data["metrics"][place]["metric"], metric["metric"]);
        assert_eq!(data["metrics"][place]["unit"], metric["unit"]);
        for (at, side) in ["a", "b"].into_iter().enumerate() {
            let figure = &data["conditions"][at]["figures"][place];
            for key in ["mean", "values", "runs"] {
                assert_eq!(figure[key], metric[side][key], "{metric}");
            }
            assert_eq!(figure["interval"], Value::Null, "that of the difference is the only one");
        }
        let words = &data["pairs"][0]["words"][place];
        assert_eq!(words["verdict"], comparison.metrics[place].compared.verdict.to_string());
    }
    for (at, side) in [&comparison.a, &comparison.b].into_iter().enumerate() {
        assert_eq!(data["conditions"][at]["runs"], json!(side.runs));
        assert_eq!(data["conditions"][at]["left_out"], json!(side.left_out));
        assert_eq!(data["conditions"][at]["timeslices"], json!(side.timeslices));
    }
}

#[test]
fn the_figures_are_those_of_the_comparison() {
    let mut gaps = held();
    gaps.0.runs[2].values.retain(|(metric, _)| *metric != Metric::Iops);
    for (a, b) in [held(), gaps, doubtful_sides(), thin_sides(), neighbour()] {
        let (data, comparison) = of_two(&a, &b);
        check(&data, &comparison);
        assert_eq!(data["sentence"], comparison.answer.sentence);
        assert_eq!(data["pairs"][0]["method"].is_null(), comparison.has_single_run());
    }
}

#[test]
fn figures_of_vcpus_have_the_words_of_the_text() {
    let (a, b) = neighbour();
    let (data, comparison) = of_two(&a, &b);
    let rows = data["pairs"][0]["vcpu_words"][0].as_array().unwrap();
    let labels: Vec<&str> = rows.iter().map(|row| row["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["run delay", "BQL", "while sh ran", "while web1 main loop ran"]);
    assert_eq!(rows.len(), comparison.vcpus[0].metrics.len());
    assert_eq!(data["metrics"], json!([]));
}

#[test]
fn what_runs_were_made_under_stands_side_by_side() {
    let (a, b) = doubtful_sides();
    let (data, _) = of_two(&a, &b);
    let rows = data["environment"].as_array().unwrap();
    let told = |row: &Value| (row["name"].clone(), row["differs"].clone(), row["values"].clone());
    let expected = [
        (json!("QEMU"), json!(true), json!([["7.2.22"], ["8.0.1"]])),
        (json!("accelerator"), json!(true), json!([["kvm", "tcg"], ["kvm"]])),
    ];
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn no_name_ends_the_data_or_reaches_the_page_as_markup() {
    let (mut a, mut b) = held();
    let hostile = "</script><script>alert(1)</script><!--";
    a.path = hostile.to_owned();
    a.runs[0].path = format!("{hostile}/1");
    b.left_out.push(LeftOut { path: hostile.to_owned(), reason: hostile.to_owned() });
    let comparison = Comparison::new(a.clone(), b.clone());
    let html = html_of(&ComparisonPage::of_two(&a, &b, &comparison));
    let scripts = |html: &str| [html.matches("<script").count(), html.matches("</script").count()];
    assert_eq!(scripts(&html), scripts(&KIND.page("", "0")));
    check(&data_in(&html), &comparison);
}

/// Pairs of conditions of which each has ten runs; in the first the claim holds, in the second there is no contention.
fn experiment_sides() -> Vec<Side> {
    let runs = |cv: f64, wait: f64| -> Vec<(f64, f64)> {
        (0..10).map(|at| (cv + 0.01 * f64::from(at), wait * (1.0 + 0.02 * f64::from(at)))).collect()
    };
    vec![
        side("ide.off", false, &runs(1.2, 3e7)),
        side("ide.iothread", true, &runs(0.7, 1e6)),
        side("nvme.off", false, &runs(0.9, 1e3)),
        side("nvme.iothread", true, &runs(0.9, 1e3)),
    ]
}

fn experiment<'a>(sides: &'a [Side], comparisons: &'a [Comparison]) -> ComparisonPage<'a> {
    let mut conditions: Vec<Condition<'a>> = sides
        .iter()
        .map(|side| Condition {
            name: side.path.clone(),
            state: "10 of 10 runs".into(),
            side: Some(side),
        })
        .collect();
    conditions.push(Condition {
        name: "floppy.off".into(),
        state: "not available".into(),
        side: None,
    });
    let pairs = comparisons.iter().enumerate();
    ComparisonPage {
        command: Command::Experiment,
        title: "drawn".into(),
        partial: Some("40 of 50 runs".into()),
        conditions,
        pairs: pairs
            .map(|(at, comparison)| Pair { a: 2 * at, b: 2 * at + 1, comparison })
            .collect(),
        text: "the text".into(),
    }
}

#[test]
fn an_experiment_says_of_its_pairs_how_many_have_which_verdict() {
    let sides = experiment_sides();
    let comparisons: Vec<Comparison> =
        sides.chunks(2).map(|pair| Comparison::new(pair[0].clone(), pair[1].clone())).collect();
    let page = experiment(&sides, &comparisons);
    let data = data_in(&html_of(&page));
    assert_eq!(
        data["sentence"],
        "The claim that an iothread makes the timeslices of the reader's vCPU steadier, as it waits less for QEMU's \
         big lock: of 2 pairs of conditions without and with one, it holds in 1 and has nothing to improve, for lack \
         of contention, in 1."
    );
    assert_eq!(data["partial"], "40 of 50 runs");
    assert_eq!(data["conditions"][4]["figures"], json!([]));
    let cv = &data["conditions"][0]["figures"][0];
    let interval = mean_interval(&sides[0].values(Metric::TimesliceCv), RESAMPLES_COUNT).unwrap();
    assert_eq!(cv["interval"], read(&interval), "as the text of an experiment has it");
    let one = data_in(&html_of(&experiment(&sides, &comparisons[..1])));
    assert_eq!(one["sentence"], comparisons[0].answer.sentence);
    let none = data_in(&html_of(&experiment(&sides, &[])));
    assert_eq!(
        none["sentence"],
        "No two conditions that differ only in the disk's iothread can be compared."
    );
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let (a, b) = held();
    let comparison = Comparison::new(a.clone(), b.clone());
    let page = ComparisonPage::of_two(&a, &b, &comparison);
    assert!(page.write(&mut crate::full::Full(100)).is_err());
}
