//! The guests' kernel of another suite: from an archive that has it in several packages, as Debian has 7.3,
//! and from one that does not.

use crate::{Result, Site, add_suite, has_apt, repository};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use vslice_tests::not_judged;

/// A site whose mirror has a suite trixie-backports, and a checkout with a cache of its own: scripts
/// write into both.
struct Checkout {
    site: Site,
}

const ENTRIES: &str = "deb [trusted=yes] file:SITE/mirror bookworm main\n";
const LOCK: &str = "bookworm linux-image-6.1.0-9-amd64 6.1.9-1 abcd\n";

impl Checkout {
    fn new() -> std::result::Result<Checkout, Box<dyn std::error::Error>> {
        let site = Site::new()?;
        site.update("site.list", ENTRIES)?;
        let path = site.directory.path();
        for (from, to) in [
            ("images/fetch-kernel", "images/fetch-kernel"),
            ("images/apt-sources", "images/apt-sources"),
            ("images/common.sh", "images/common.sh"),
            ("images/build-micro", "images/build-micro"),
            ("tests/other-kernel", "tests/other-kernel"),
        ] {
            let to = path.join("checkout").join(to);
            fs::create_dir_all(to.parent().ok_or("no directory")?)?;
            copy(&repository().join(from), &to)?;
        }
        fs::write(path.join("checkout/images/kernel.lock"), LOCK)?;
        Ok(Checkout { site })
    }

    fn path(&self, below: &str) -> PathBuf {
        self.site.directory.path().join(below)
    }

    fn run(&self, script: &str, arguments: &[&str]) -> std::io::Result<Output> {
        let mut command = self.site.command(self.path("checkout").join(script));
        command.args(arguments).env("XDG_CACHE_HOME", self.path("cache-of-vslice")).output()
    }

    /// A kernel of three packages, of which the meta-package names one.
    fn add_kernel(&self) -> Result {
        let release = "7.9.1+deb13-amd64";
        let depends = |packages: &[&str]| {
            let named = packages.iter().map(|package| format!("{package} (= 7.9.1-1~bpo13+1)"));
            named.collect::<Vec<String>>().join(", ")
        };
        let binary = format!("linux-binary-{release}");
        let modules = format!("linux-modules-{release}");
        let image = format!("linux-image-{release}");
        let in_modules = |file: &str| format!("usr/lib/modules/{release}/{file}");
        let mut records = String::new();
        for (package, depends, files) in [
            ("linux-image-amd64", depends(&[&image]), vec![]),
            (&*image, format!("kmod, {}", depends(&[&binary, &modules])), vec![]),
            (&*binary, String::new(), vec![in_modules("vmlinuz")]),
            (&*modules, depends(&[&binary]), vec![in_modules("modules.dep"), in_modules("a.ko")]),
        ] {
            records.push_str(&self.add_package(package, &depends, &files)?);
        }
        let sum = sha256(&records)?;
        let mirror = self.path("mirror");
        Ok(add_suite(&mirror, "trixie-backports", "Debian Backports", &records, &sum)?)
    }

    /// Builds a package into the mirror; returns its record.
    fn add_package(
        &self,
        package: &str,
        depends: &str,
        files: &[String],
    ) -> std::result::Result<String, Box<dyn std::error::Error>> {
        let root = self.path("packages").join(package);
        fs::create_dir_all(root.join("DEBIAN"))?;
        let depends =
            if depends.is_empty() { String::new() } else { format!("Depends: {depends}\n") };
        let control = format!(
            "Package: {package}\nVersion: 7.9.1-1~bpo13+1\nArchitecture: amd64\n{depends}\
             Maintainer: Nobody <nobody@example.org>\nDescription: a kernel\n"
        );
        fs::write(root.join("DEBIAN/control"), &control)?;
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().ok_or("no directory")?)?;
            fs::write(path, package)?;
        }
        let name = format!("{package}_7.9.1_amd64.deb");
        let deb = self.path("mirror").join(&name);
        let built = Command::new("dpkg-deb").arg("--build").arg(&root).arg(&deb).output()?;
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let sum = sha256_of(&deb)?;
        let bytes = fs::metadata(&deb)?.len();
        Ok(format!("{control}Filename: {name}\nSize: {bytes}\nSHA256: {sum}\n\n"))
    }
}

fn sha256(text: &str) -> std::io::Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    sha256_of(file.path())
}

fn sha256_of(file: &Path) -> std::io::Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// Copies a program by a process of its own: were it written here, a child that another test starts meanwhile would
/// hold it open for writing until its `execve`, and it could not be run (`ETXTBSY`, execve(2)).
fn copy(from: &Path, to: &Path) -> Result {
    let status = Command::new("cp").args([from, to]).status()?;
    status.success().then_some(()).ok_or_else(|| format!("cp {}: {status}", to.display()).into())
}

/// The names of the lists that the site's apt has.
fn lists(checkout: &Checkout) -> std::io::Result<Vec<String>> {
    let entries = fs::read_dir(checkout.path("state/lists"))?.flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

#[test]
fn a_kernel_of_backports_comes_with_lists_of_its_own_and_is_pinned() -> Result {
    if !has_apt() {
        return not_judged("a kernel of backports", "there is no apt-get");
    }
    let checkout = Checkout::new()?;
    checkout.add_kernel()?;
    let before = lists(&checkout)?;
    let output = checkout.run("images/fetch-kernel", &["trixie-backports"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8(output.stdout)?;
    let kernel = PathBuf::from(printed.trim_end());
    let release = "7.9.1+deb13-amd64";
    let read = |file: String| fs::read_to_string(kernel.join(file));
    assert_eq!(read(format!("boot/vmlinuz-{release}"))?, format!("linux-binary-{release}"));
    assert_eq!(read(format!("lib/modules/{release}/a.ko"))?, format!("linux-modules-{release}"));
    assert_eq!(lists(&checkout)?, before, "the system's lists");

    let lock = fs::read_to_string(checkout.path("checkout/images/kernel.lock"))?;
    let pins: Vec<String> =
        lock.lines().map(|line| line.split(' ').take(3).collect::<Vec<&str>>().join(" ")).collect();
    let pin = |part: &str| format!("trixie-backports linux-{part}-{release} 7.9.1-1~bpo13+1");
    let others = "bookworm linux-image-6.1.0-9-amd64 6.1.9-1".to_owned();
    assert_eq!(pins, [others, pin("image"), pin("binary"), pin("modules")], "{lock}");

    // What is there needs no archive.
    fs::remove_dir_all(checkout.path("mirror"))?;
    let again = checkout.run("images/fetch-kernel", &["trixie-backports"])?;
    assert_eq!(String::from_utf8(again.stdout)?, printed);
    Ok(())
}

#[test]
fn an_image_whose_kernel_cannot_be_had_says_why() -> Result {
    const SUITE: &str = "trixie-backports";
    if !has_apt() {
        return not_judged("an image without a kernel", "there is no apt-get");
    }
    let checkout = Checkout::new()?;
    let out = checkout.path("out");
    let directory = out.display().to_string();
    let output = checkout.run("tests/other-kernel", &["/bin/true", &directory, SUITE])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8(output.stdout)?.trim_end(), directory);
    let missing = fs::read_to_string(out.join("missing"))?;
    assert!(missing.contains(SUITE), "{missing}");
    assert!(!out.join("vmlinuz").exists());

    // An agent that no image can hold is no matter of the kernel.
    checkout.add_kernel()?;
    let output = checkout.run("tests/other-kernel", &["/nowhere/agent", &directory, SUITE])?;
    assert!(!output.status.success());
    assert!(!out.join("missing").exists());
    Ok(())
}
