//! The iothreads of a QEMU, and which of them serve something.

use super::options;
use super::properties::Properties;
use std::collections::BTreeSet;

/// What a command line says of its iothreads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Iothreads {
    /// Their ids, in the order in which QEMU makes them (qemu: system/vl.c, `object_option_foreach_add`).
    pub ids: Vec<String>,
    /// Those that nothing else refers to; empty also if a configuration file may.
    pub unused: Vec<String>,
}

impl Iothreads {
    /// Reads a command line, the program's own name first.
    #[must_use]
    pub fn parse(words: &[String]) -> Iothreads {
        let options = options(words);
        let objects = options.iter().filter(|(option, _)| *option == "object");
        let objects = objects.map(|(_, value)| Properties::parse(value, "qom-type"));
        let iothreads = objects.filter(|object| object.get("qom-type") == Some("iothread"));
        let ids: Vec<String> =
            iothreads.filter_map(|object| object.get("id").map(str::to_owned)).collect();
        // `iothread`, `iothread-vq-mapping.0.iothread`, and `device.d0.iothread` of `-set`.
        let is_reference = |key: &str| key == "iothread" || key.ends_with(".iothread");
        let mut used = BTreeSet::new();
        for (_, value) in &options {
            let properties = Properties::parse(value, "");
            used.extend(properties.all(is_reference).map(str::to_owned));
        }
        let has_file = options.iter().any(|(option, _)| *option == "readconfig");
        let is_unused = |id: &&String| !has_file && !used.contains(*id);
        let unused = ids.iter().filter(is_unused).cloned().collect();
        Iothreads { ids, unused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Iothreads {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Iothreads::parse(&words)
    }

    #[test]
    fn iothreads_have_their_order_and_their_users() {
        let found = parse(
            r#"qemu -object iothread,id=b -object {"qom-type":"iothread","id":"a"} -object iothread,id=c
            -object iothread,id=d -object iothread,id=e -object memory-backend-ram,id=m,size=1G
            -device virtio-scsi-pci,id=s,iothread=b -set device.v.iothread=d
            -device {"driver":"virtio-blk-pci","iothread-vq-mapping":[{"iothread":"c"}],"drive":"x"}"#,
        );
        assert_eq!(found.ids, ["b", "a", "c", "d", "e"]);
        assert_eq!(found.unused, ["a", "e"]);
        let by_file = parse("qemu -object iothread,id=b -readconfig /a");
        assert_eq!((by_file.ids.len(), by_file.unused.len()), (1, 0), "the file may use it");
    }
}
