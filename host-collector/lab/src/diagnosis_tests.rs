//! The verdicts, and `doctor_schema.md` held against the JSON.

use super::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const SCHEMA_MD: &str = include_str!("doctor_schema.md");

fn by_hand() -> ByHand {
    let (plug, unplug) = (vec!["in".to_owned()], vec!["out".to_owned()]);
    ByHand { how: "virsh does it".to_owned(), plug, unplug, by_attach: false }
}

fn host(findings: &[Finding]) -> Diagnosis {
    Diagnosis::of_host(findings.to_vec())
}

/// Of a VM in whose guest an agent is, and can be started.
fn vm(findings: &[Finding], plug: Option<ByHand>) -> Diagnosis {
    let findings = [findings, &[Finding::ok(AGENT, "there")]].concat();
    Diagnosis::of_vm("web1".to_owned(), findings, true, plug)
}

#[test]
fn the_verdict_says_that_an_agent_has_to_be_uploaded() {
    let verdict = |way: Finding, plug| {
        let findings = vec![Finding::ok(VCPU_THREADS, "2"), way, Finding::ok(QEMU_GA, "7.2")];
        Diagnosis::of_vm("web1".to_owned(), findings, true, plug).verdict
    };
    assert_eq!(
        verdict(Finding::ok(TRANSPORT, "vhost-vsock"), None),
        "vslice can attach to web1, also with --load and --agent FILE"
    );
    let plug = Some(ByHand { by_attach: true, ..by_hand() });
    assert_eq!(
        verdict(Finding::degraded(TRANSPORT, "none", "plug one in"), plug),
        "vslice can attach to web1; --load also needs --plug and --agent FILE: transport to this host: none"
    );
}

#[test]
fn attaching_needs_no_image() {
    let image = Finding::missing("guest image", "none in target/images/micro", "build it");
    let qemu = Finding::ok("QEMU", "7.2");
    let all = host(std::slice::from_ref(&qemu));
    assert_eq!(all.verdict, "this host can attach to VMs and can run plans");
    assert_eq!((all.can_attach, all.can_run), (true, Some(true)));
    let some = host(&[qemu, image.clone()]);
    assert_eq!(
        some.verdict,
        "this host can attach to VMs but cannot run plans: guest image: none in target/images/micro"
    );
    assert_eq!((some.can_attach, some.can_run), (true, Some(false)));
    let none = host(&[image, Finding::missing("pCPUs", "/sys is not there", "mount it")]);
    assert_eq!(
        none.verdict,
        "this host can neither attach to VMs nor run plans: pCPUs: /sys is not there; guest \
         image: none in target/images/micro"
    );
    assert_eq!((none.can_attach, none.can_run), (false, Some(false)));
}

#[test]
fn a_vm_can_be_attached_to_or_loaded_or_neither() {
    let threads = Finding::ok(VCPU_THREADS, "2");
    let agent = Finding::ok(QEMU_GA, "version 7.2");
    let all = vm(&[threads.clone(), Finding::ok(TRANSPORT, "vhost-vsock"), agent.clone()], None);
    assert_eq!(all.verdict, "vslice can attach to web1, also with --load");
    assert_eq!((all.can_attach, all.can_load), (true, Some(true)));
    let no_way = Finding::degraded(TRANSPORT, "none", "plug one in");
    let lacks = [threads, no_way, agent];
    let own_monitor = vm(&lacks, Some(ByHand { by_attach: true, ..by_hand() }));
    assert_eq!(
        own_monitor.verdict,
        "vslice can attach to web1; --load also needs --plug: transport to this host: none"
    );
    assert_eq!((own_monitor.can_attach, own_monitor.can_load), (true, Some(false)));
    let some = vm(&lacks, Some(by_hand()));
    assert_eq!(
        some.verdict,
        "vslice can attach to web1, but not with --load: transport to this host: none"
    );
    assert_eq!((some.can_attach, some.can_load), (true, Some(false)));
    let agent = Finding::degraded(QEMU_GA, "nobody answers", "start it");
    let mute = Diagnosis::of_vm("web1".to_owned(), vec![agent], false, None);
    assert!(
        mute.verdict.ends_with("but not with --load: qemu-ga: nobody answers"),
        "{}",
        mute.verdict
    );
    let none = vm(&[Finding::missing(VCPU_THREADS, "none can be told", "name them")], None);
    assert_eq!(none.verdict, "vslice cannot attach to web1: vCPU threads: none can be told");
    assert_eq!((none.can_attach, none.can_load), (false, Some(false)));
}

#[test]
fn a_poor_level_of_evidence_is_in_the_verdict() {
    let threads = Finding::ok(VCPU_THREADS, "2");
    let totals = Finding::degraded(EVIDENCE, "totals: run delays, no reasons; why", "run as root");
    let (way, agent) = (Finding::ok(TRANSPORT, "vhost-vsock"), Finding::ok(QEMU_GA, "version 7.2"));
    let all = [threads.clone(), totals.clone(), way, agent];
    assert_eq!(
        vm(&all, None).verdict,
        "vslice can attach to web1 (totals: run delays, no reasons), also with --load"
    );
    let recorded = vm(&[threads, Finding::ok(EVIDENCE, "recorded: all")], None);
    assert_eq!(recorded.verdict, "vslice can attach to web1, also with --load");
    let none = vm(&[Finding::missing(VCPU_THREADS, "none can be told", "name them"), totals], None);
    assert_eq!(none.verdict, "vslice cannot attach to web1: vCPU threads: none can be told");
}

#[test]
fn the_page_ends_with_the_verdict() {
    let findings =
        [Finding::ok("QEMU", "7.2"), Finding::missing("guest image", "none", "build it")];
    assert_eq!(
        host(&findings).render(),
        "ok        QEMU         7.2\n\
         MISSING   guest image  none\n                       -> build it\n\n\
         this host can attach to VMs but cannot run plans: guest image: none\n"
    );
    let no_lines =
        ByHand { plug: vec![], unplug: vec![], how: "it has no qemu-ga".to_owned(), ..by_hand() };
    let page = vm(&[Finding::degraded(TRANSPORT, "none", "plug")], Some(no_lines)).render();
    assert!(
        page.contains("\nNo transport can be plugged in: it has no qemu-ga\n\nvslice can"),
        "{page}"
    );
    let page = vm(&[Finding::degraded(TRANSPORT, "none", "plug")], Some(by_hand())).render();
    assert!(
        page.contains(
            "\nTo plug in a transport: virsh does it:\n  in\nTo unplug it again:\n  out\n\nvslice can"
        ),
        "{page}"
    );
}

fn visit(key: &str, value: &Value, seen: &mut BTreeMap<String, BTreeSet<String>>) {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Array(values) => {
            return values.iter().for_each(|value| visit(&format!("{key}[]"), value, seen));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let child = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
                visit(&child, value, seen);
            }
            "object"
        }
    };
    seen.entry(key.to_owned()).or_default().insert(name.to_owned());
}

#[test]
fn every_key_is_documented_with_its_type_and_none_beside() {
    let findings =
        [Finding::ok("QEMU", "7.2"), Finding::missing("guest image", "none", "build it")];
    let mut seen = BTreeMap::new();
    for diagnosis in [host(&findings), vm(&findings, Some(by_hand()))] {
        visit("", &serde_json::to_value(&diagnosis).unwrap(), &mut seen);
    }
    // An object is documented by its keys, and where it can be absent.
    seen.retain(|key, types| !key.is_empty() && (key == "plug" || !types.contains("object")));
    let rows = SCHEMA_MD.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeMap<String, BTreeSet<String>> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let types = cells[2].split(" or ").map(str::to_owned).collect();
            (cells[1].trim_matches('`').to_owned(), types)
        })
        .collect();
    assert_eq!(seen, documented, "left: the JSON; right: doctor_schema.md");
    for status in [Status::Ok, Status::Degraded, Status::Missing] {
        let word = serde_json::to_value(status).unwrap();
        let word = format!("`{}`", word.as_str().unwrap());
        assert!(SCHEMA_MD.contains(&word), "{word} in doctor_schema.md");
    }
    assert!(SCHEMA_MD.contains(SCHEMA));
}
