//! Character devices that are Unix sockets, and the monitors behind them.

use super::SocketPlace;
use super::properties::Properties;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The character devices that are Unix sockets, by their ids.
pub(super) fn chardevs(values: impl Iterator<Item = Properties>) -> BTreeMap<String, SocketPlace> {
    let socket = |chardev: Properties| {
        let id = chardev.get("id").unwrap_or_default().to_owned();
        Some((id, place(&chardev).filter(|_| chardev.get("backend") == Some("socket"))?))
    };
    values.filter_map(socket).collect()
}

/// Those of them that QEMU listens on, in plain. Of another one QEMU is a client, and whoever connects to its path
/// meets somebody else.
pub(super) fn servers(values: impl Iterator<Item = Properties>) -> BTreeMap<String, SocketPlace> {
    chardevs(values.filter(is_plain_server))
}

fn is_plain_server(chardev: &Properties) -> bool {
    let is_wrapped = ["telnet", "tn3270", "websocket"].iter().any(|key| chardev.is_on(key));
    chardev.is_on("server") && !is_wrapped && chardev.get("tls-creds").is_none()
}

/// Where it is; an abstract one has no path (unix(7)).
fn place(chardev: &Properties) -> Option<SocketPlace> {
    let path = chardev.get("path").filter(|_| !chardev.is_on("abstract"));
    let fd = || Some(SocketPlace::Fd(chardev.get("fd")?.parse().ok()?));
    path.map(|path| SocketPlace::Path(path.into())).or_else(fd)
}

/// The sockets on which QEMU takes QMP. `-monitor` takes HMP.
pub(super) fn qmp(
    options: &[(&str, &str)],
    servers: &BTreeMap<String, SocketPlace>,
) -> Vec<PathBuf> {
    let by_id = |id: &str| servers.get(id).cloned();
    let socket = |(option, value): &(&str, &str)| match *option {
        // qemu: system/vl.c, `monitor_parse`; chardev/char.c, `qemu_chr_parse_compat`.
        "qmp" | "qmp-pretty" => match (value.strip_prefix("chardev:"), value.strip_prefix("unix:"))
        {
            (Some(id), _) => by_id(id),
            (None, Some(socket)) => {
                let socket = Properties::parse(socket, "path");
                place(&socket).filter(|_| is_plain_server(&socket))
            }
            (None, None) => None,
        },
        "mon" => {
            let monitor = Properties::parse(value, "chardev");
            let is_qmp = monitor.get("mode") == Some("control");
            monitor.get("chardev").filter(|_| is_qmp).and_then(by_id)
        }
        // From 11.1 on, which warns of `-mon` as deprecated.
        "object" => {
            let object = Properties::parse(value, "qom-type");
            let is_qmp = object.get("qom-type") == Some("monitor-qmp");
            object.get("chardev").filter(|_| is_qmp).and_then(by_id)
        }
        _ => None,
    };
    options.iter().filter_map(socket).filter_map(SocketPlace::into_path).collect()
}

#[cfg(test)]
mod tests {
    use crate::qemu_args::QemuArgs;

    #[test]
    fn qmp_is_where_qemu_listens_for_it() {
        let sockets = |line: &str| {
            let words: Vec<String> = format!("qemu {line}").split(' ').map(str::to_owned).collect();
            QemuArgs::parse(&words).qmp_sockets
        };
        let one = [std::path::PathBuf::from("/q")];
        for line in [
            "-qmp unix:/q,server=on,wait=off",
            "-qmp unix:/q,server,nowait",
            "-qmp unix:path=/q,server=on,wait=off",
            "-qmp-pretty unix:/q,server=yes",
            "-qmp chardev:c -chardev socket,id=c,path=/q,server=on",
            "-chardev socket,id=c,path=/q,server -mon chardev=c,mode=control",
            "-chardev socket,path=/q,server=true,id=c -mon c,mode=control,pretty=on",
            "-chardev socket,id=c,path=/q,server=on -object monitor-qmp,id=m,chardev=c",
            r#"-object {"qom-type":"monitor-qmp","id":"m","chardev":"c"} -chardev socket,id=c,path=/q,server=on"#,
        ] {
            assert_eq!(sockets(line), one, "{line}");
        }
        for line in [
            "-qmp unix:/q",
            "-qmp unix:/q,server=off",
            "-qmp unix:/q,server=on,abstract=on",
            "-qmp unix:/q,server=on,websocket=on",
            "-qmp tcp:localhost:4444,server=on,wait=off",
            "-qmp stdio",
            "-monitor unix:/q,server=on,wait=off",
            "-chardev socket,id=c,path=/q,reconnect=5 -mon chardev=c,mode=control",
            "-chardev socket,id=c,path=/q,reconnect-ms=5000 -mon chardev=c,mode=control",
            "-chardev socket,id=c,path=/q,server=on -mon chardev=c,mode=readline",
            "-chardev socket,id=c,path=/q,server=on -mon chardev=c",
            "-chardev socket,id=c,fd=27,server=on -mon chardev=c,mode=control",
            "-chardev socket,id=c,path=/q,server=on -object monitor-hmp,id=m,chardev=c",
            "-chardev socket,id=c,path=/q,server=off -object monitor-qmp,id=m,chardev=c",
            "-chardev file,id=c,path=/q,server=on -mon chardev=c,mode=control",
        ] {
            assert!(sockets(line).is_empty(), "{line}");
        }
    }
}
