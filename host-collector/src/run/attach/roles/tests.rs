use super::*;

/// The demo's parts are vm1 and vm2.
fn cast(vms: &[&str], named: &[Option<&str>]) -> Result<Vec<String>, String> {
    let vms: Vec<Vm> = vms.iter().map(|name| Vm::named(name)).collect();
    let named: Vec<Option<String>> = named.iter().map(|name| name.map(str::to_owned)).collect();
    let plan = Plan::load("demo").expect("built in");
    let casting = Casting::new(plan, &vms, &named).map_err(|error| error.to_string())?;
    Ok(casting.parts().map(|part| part.name.clone()).collect())
}

#[test]
fn a_part_is_named_or_of_the_own_name_or_the_first_that_is_free() {
    for (vms, named, parts) in [
        (&["web"][..], &[None][..], &["vm1"][..]),
        (&["web"], &[Some("vm2")], &["vm2"]),
        (&["vm2"], &[None], &["vm2"]),
        (&["web", "db"], &[None, None], &["vm1", "vm2"]),
        (&["web", "db"], &[None, Some("vm1")], &["vm2", "vm1"]),
        (&["web", "vm1"], &[None, None], &["vm2", "vm1"]),
        (&["vm1", "vm2"], &[Some("vm2"), Some("vm1")], &["vm2", "vm1"]),
    ] {
        assert_eq!(cast(vms, named).unwrap(), parts, "{vms:?} {named:?}");
    }
}

#[test]
fn a_part_that_cannot_be_had_is_said() {
    let message = cast(&["web"], &[Some("vm9")]).unwrap_err();
    assert_eq!(
        message,
        "plan 'demo' has no part 'vm9' for web; its parts are vm1, vm2: say VM=PART"
    );
    let message = cast(&["a", "b", "c"], &[None, None, None]).unwrap_err();
    assert!(message.contains("no part left for c"), "{message}");
    let message = cast(&["a", "vm1"], &[Some("vm1"), None]).unwrap_err();
    assert!(message.contains("somebody else has the part of vm1"), "{message}");
}

#[test]
fn pins_need_a_pcpu_for_each_vcpu() {
    let vms = [Vm::named("web")];
    let casting = Casting::new(Plan::load("demo").expect("built in"), &vms, &[None]).unwrap();
    let message = casting.check_pins(&vms).unwrap_err().to_string();
    assert_eq!(message, "web has 0 vCPUs, 'vm1' of the plan to pin it by has 2");
}
