//! The names of control groups, as users know them: from a path to its last parts.
//!
//! What parts of a path mean is a custom of those who make them: systemd's units and slices (systemd.special(7)),
//! the scopes of container runtimes (runc's `prefix-ID.scope`, crun's, CRI-O's), Kubernetes' pods
//! (`kubepods-*-podUID.slice`), LXC's `lxc.payload.NAME`, Proxmox VE's `lxc/ID` and `qemu.slice/ID.scope`.

/// What a group is called that is the root of its hierarchy.
const ROOT: &str = "root control group";

/// Digits of a container's id that are shown, as `docker ps` does.
const ID_CHARS: usize = 12;

/// Digits of a pod's id that are shown.
const POD_CHARS: usize = 8;

/// The names of units' files that are groups.
const UNITS: [&str; 5] = [".service", ".scope", ".slice", ".mount", ".socket"];

/// Container runtimes by the prefixes of their scopes.
const RUNTIMES: [(&str, &str); 7] = [
    ("docker-", "docker "),
    ("libpod-conmon-", "podman's conmon "),
    ("libpod-", "podman "),
    ("cri-containerd-", "containerd "),
    ("crio-conmon-", "CRI-O's conmon "),
    ("crio-", "CRI-O "),
    ("nerdctl-", "containerd "),
];

/// A group's name by its path.
pub(super) fn name_of(path: &str) -> String {
    let parts: Vec<String> =
        path.split('/').filter(|part| !part.is_empty()).map(unescaped).collect();
    let Some(last) = parts.len().checked_sub(1) else { return ROOT.to_owned() };
    let container = parts.iter().enumerate().rev().find_map(|(place, part)| {
        let above = place.checked_sub(1).and_then(|above| parts.get(above));
        Some((place, container(part, above.map(String::as_str))?))
    });
    let pod = parts.iter().rev().find_map(|part| pod(part));
    let within = |(name, what): (String, Option<String>)| match what {
        Some(what) => format!("{name} in {what}"),
        None => name,
    };
    match container {
        Some((place, container)) if place == last => within((container, pod)),
        Some((place, container)) => within((unit(&parts[place + 1..]), Some(container))),
        None => match pod {
            Some(pod) => pod,
            None => {
                let (manager, parts) = nested(&parts);
                let name = of_user(parts).unwrap_or_else(|| unit(parts));
                within((name, manager.cloned()))
            }
        },
    }
}

/// Where a systemd of its own runs in a unit, as that of a container of systemd-nspawn does, that unit, and what is
/// below it: else its `cron.service` would be told as the host's. That of a user is told in [`of_user`].
fn nested(parts: &[String]) -> (Option<&String>, &[String]) {
    let is_manager = |part: &String| {
        (part.ends_with(".service") || part.ends_with(".scope")) && !part.starts_with("user@")
    };
    let last = parts.iter().rposition(|part| is_unit(part)).unwrap_or_default();
    match parts[..last].iter().position(is_manager) {
        Some(place) => (parts.get(place), &parts[place + 1..]),
        None => (None, parts),
    }
}

/// `\x2d` is `-` in the names of units: systemd.unit(5), "String Escaping for Inclusion in Unit Names".
fn unescaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    let mut rest = part;
    while let Some((before, after)) = rest.split_once("\\x") {
        text.push_str(before);
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.map(char::from).filter(|letter| letter.is_ascii() && !letter.is_control()) {
            Some(letter) => {
                text.push(letter);
                rest = &after[2..];
            }
            None => {
                text.push_str("\\x");
                rest = after;
            }
        }
    }
    text + rest
}

/// A container, by its part of a path and the one above.
fn container(part: &str, above: Option<&str>) -> Option<String> {
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(format!("lxc {name}"));
    }
    let scope = part.strip_suffix(".scope").unwrap_or(part);
    let by_runtime = RUNTIMES.iter().find_map(|(prefix, name)| {
        let id = scope.strip_prefix(prefix).filter(|id| is_id(id))?;
        Some(format!("{name}{}", short(id)))
    });
    // Without systemd the runtimes make plain directories.
    let plain = || match above {
        Some("docker") if is_id(part) => Some(format!("docker {}", short(part))),
        Some("lxc") => Some(format!("lxc {part}")),
        Some(above) if is_id(part) && pod(above).is_some() => {
            Some(format!("container {}", short(part)))
        }
        _ => None,
    };
    by_runtime.or_else(plain)
}

/// `kubepods-burstable-pod1b2c3d4e_....slice`, or `pod1b2c3d4e-...` without systemd.
fn pod(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let id = match name.rsplit_once("-pod") {
        Some((above, id)) if above.contains("kubepods") => id,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    let first = id.get(..POD_CHARS)?;
    // A static pod's id is a hash, any other's a UUID.
    let rest = &id[POD_CHARS..];
    let is_id = first.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (rest.starts_with(['_', '-']) || is_hexadecimal(rest));
    is_id.then(|| format!("pod {first}"))
}

/// `session-3.scope of user 1000`: what is below a user's slice has names that each user has.
fn of_user(parts: &[String]) -> Option<String> {
    let user = parts.iter().find_map(|part| {
        let id = part.strip_prefix("user-")?.strip_suffix(".slice")?;
        id.bytes().all(|byte| byte.is_ascii_digit()).then_some(id)
    })?;
    let unit = unit(parts);
    let is_slice = unit == format!("user-{user}.slice");
    Some(if is_slice { unit } else { format!("{unit} of user {user}") })
}

fn is_unit(part: &str) -> bool {
    UNITS.iter().any(|end| part.ends_with(end))
}

/// The innermost unit, and what is below it; else the last parts.
fn unit(parts: &[String]) -> String {
    let Some(place) = parts.iter().rposition(|part| is_unit(part)) else {
        // `docker/buildkit`, `vms/web`: two parts say more than one.
        return parts[parts.len().saturating_sub(2)..].join("/");
    };
    let name = &parts[place];
    let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
    let is_number = stem.bytes().all(|byte| byte.is_ascii_digit());
    // `qemu.slice/101.scope`: a number alone says nothing.
    let from = if is_number { place.saturating_sub(1) } else { place };
    // libvirt's groups for the threads of a VM are of that VM.
    let below = parts[place + 1..].iter().position(|part| part == "libvirt");
    let until = below.map_or(parts.len(), |below| place + 1 + below);
    parts[from..until].join("/")
}

fn is_id(text: &str) -> bool {
    text.len() >= ID_CHARS && is_hexadecimal(text)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn short(id: &str) -> &str {
    id.get(..ID_CHARS).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "3f2a1b0c9d8e7f60514233241506978899aabbccddeeff001122334455667788";

    #[test]
    fn groups_are_called_as_those_who_made_them_do() {
        let pod = "/kubepods.slice/kubepods-burstable.slice/\
            kubepods-burstable-pod1b2c3d4e_5f60_4a7b_8c9d_0e1f2a3b4c5d.slice";
        for (path, name) in [
            ("/".to_owned(), "root control group"),
            ("/system.slice/nginx.service".to_owned(), "nginx.service"),
            (
                "/system.slice/system-getty.slice/getty@tty1.service".to_owned(),
                "getty@tty1.service",
            ),
            ("/init.scope".to_owned(), "init.scope"),
            ("/system.slice".to_owned(), "system.slice"),
            ("/system.slice/containerd.service/a/b".to_owned(), "containerd.service/a/b"),
            (format!("/system.slice/docker-{ID}.scope"), "docker 3f2a1b0c9d8e"),
            (format!("/docker/{ID}"), "docker 3f2a1b0c9d8e"),
            ("/docker/buildkit".to_owned(), "docker/buildkit"),
            (
                format!("/machine.slice/libpod-{ID}.scope/container"),
                "container in podman 3f2a1b0c9d8e",
            ),
            (format!("/machine.slice/libpod-conmon-{ID}.scope"), "podman's conmon 3f2a1b0c9d8e"),
            (format!("{pod}/cri-containerd-{ID}.scope"), "containerd 3f2a1b0c9d8e in pod 1b2c3d4e"),
            (format!("{pod}/crio-{ID}.scope"), "CRI-O 3f2a1b0c9d8e in pod 1b2c3d4e"),
            (pod.to_owned(), "pod 1b2c3d4e"),
            (
                format!("/kubepods/besteffort/pod1b2c3d4e-5f60-4a7b-8c9d-0e1f2a3b4c5d/{ID}"),
                "container 3f2a1b0c9d8e in pod 1b2c3d4e",
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope".to_owned(),
                "session-3.scope of user 1000",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-77.scope"
                    .to_owned(),
                "app-firefox-77.scope of user 1000",
            ),
            ("/user.slice/user-1000.slice".to_owned(), "user-1000.slice"),
            (
                "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/vcpu0".to_owned(),
                "machine-qemu-1-web.scope",
            ),
            ("/qemu.slice/101.scope".to_owned(), "qemu.slice/101.scope"),
            (
                "/machine.slice/systemd-nspawn@web.service/payload/system.slice/cron.service"
                    .to_owned(),
                "cron.service in systemd-nspawn@web.service",
            ),
            (
                "/machine.slice/machine-web.scope/payload/user.slice/user-0.slice/session-1.scope"
                    .to_owned(),
                "session-1.scope of user 0 in machine-web.scope",
            ),
            (
                "/machine.slice/systemd-nspawn@web.service/supervisor".to_owned(),
                "systemd-nspawn@web.service/supervisor",
            ),
            ("/lxc.payload.ct1/system.slice/cron.service".to_owned(), "cron.service in lxc ct1"),
            ("/lxc/101/ns/system.slice/cron.service".to_owned(), "cron.service in lxc 101"),
            ("/vms/web".to_owned(), "vms/web"),
            ("/build".to_owned(), "build"),
        ] {
            assert_eq!(name_of(&path), name, "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_something_keeps_its_name() {
        assert_eq!(name_of("/system.slice/docker-registry.service"), "docker-registry.service");
        assert_eq!(name_of("/system.slice/podcast.service"), "podcast.service");
        assert_eq!(name_of("/system.slice/tripod-poddeadbeef.slice"), "tripod-poddeadbeef.slice");
        assert_eq!(name_of("/a/odd\\x1bname\\xzz"), "a/odd\\x1bname\\xzz");
    }

    proptest! {
        #[test]
        fn any_path_has_a_name(path in "(/([a-z.@\u{e9}]{0,6}|lxc|docker|pod[0-9a-f]{8,10}|user-1[.]slice|a[.]scope|\\\\x2)){0,6}") {
            let name = name_of(&path);
            prop_assert!(!name.is_empty());
            prop_assert!(!name.chars().any(char::is_control));
        }
    }
}
