//! The options of a command line.

/// Options that take no value, of QEMU 1.4 to 11.1 (qemu: qemu-options.hx, those without `HAS_ARG`). All others take
/// the next word, whatever it begins with.
const FLAGS: [&str; 49] = [
    "S",
    "alt-grab",
    "ctrl-grab",
    "curses",
    "daemonize",
    "enable-fips",
    "enable-hax",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "h",
    "help",
    "jitdump",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-frame",
    "no-hpet",
    "no-kvm",
    "no-kvm-irqchip",
    "no-kvm-pit",
    "no-kvm-pit-reinjection",
    "no-quit",
    "no-reboot",
    "no-shutdown",
    "no-tdf",
    "no-user-config",
    "nodefaults",
    "nodefconfig",
    "nographic",
    "old-param",
    "only-migratable",
    "perfmap",
    "portrait",
    "preconfig",
    "qtest-log-stderr",
    "rtc-td-hack",
    "s",
    "sdl",
    "semihosting",
    "singlestep",
    "snapshot",
    "tdf",
    "usb",
    "version",
    "win2k-hack",
    "xen-attach",
    "xen-create",
    "xen-domid-restrict",
];

/// Each option without its dashes, with its value; that of a flag is empty. An image that stands alone is `-hda`
/// (qemu: system/vl.c, `qemu_init`).
pub(super) fn options(words: &[String]) -> Vec<(&str, &str)> {
    let mut options = Vec::new();
    let mut rest = words.iter().skip(1).map(String::as_str);
    while let Some(word) = rest.next() {
        let Some(option) = word.strip_prefix('-') else {
            options.push(("hda", word));
            continue;
        };
        let option = option.strip_prefix('-').unwrap_or(option);
        let value = if FLAGS.contains(&option) { None } else { rest.next() };
        options.push((option, value.unwrap_or_default()));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_has_its_value_and_no_other() {
        let words = ["qemu", "-S", "a.img", "--m", "512", "-append", "-x", "-snapshot", "-id"];
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let expected = [
            ("S", ""),
            ("hda", "a.img"),
            ("m", "512"),
            ("append", "-x"),
            ("snapshot", ""),
            ("id", ""),
        ];
        assert_eq!(options(&words), expected);
    }
}
