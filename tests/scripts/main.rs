//! The repository's scripts: from where they get what vslice needs, and how long they say that tests took.

mod kernel;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use vslice_tests::not_judged;

pub(crate) type Result = std::result::Result<(), Box<dyn std::error::Error>>;

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Not empty, for apt keeps no empty lists.
const PACKAGES: &str = "Package: vslice\nVersion: 1\nArchitecture: all\n";
const PACKAGES_SHA256: &str = "1ac840187aff184c18ea602410df320935937e67f0df320f2deca7f2066cc060";

/// A site's mirror of Debian, its security archive and something else, and an apt that knows nothing more.
pub(crate) struct Site {
    pub(crate) directory: TempDir,
}

impl Site {
    pub(crate) fn new() -> std::io::Result<Site> {
        let directory = TempDir::new()?;
        for (archive, suite, label) in [
            ("other", "bookworm-backports", "Debian Backports"),
            ("mirror", "bookworm", "Debian"),
            ("security", "bookworm-security", "Debian-Security"),
        ] {
            add_suite(&directory.path().join(archive), suite, label, PACKAGES, PACKAGES_SHA256)?;
        }
        let path = directory.path().display();
        for name in ["parts", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.path().join(name))?;
        }
        let configuration = format!(
            "Dir::Etc::SourceList \"/dev/null\";\nDir::Etc::SourceParts \"{path}/parts\";\n\
             Dir::State \"{path}/state\";\nDir::Cache \"{path}/cache\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Sandbox::User \"\";\n"
        );
        fs::write(directory.path().join("apt.conf"), configuration)?;
        Ok(Site { directory })
    }

    /// A program for which this apt is the system's.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.directory.path().join("apt.conf"));
        command
    }

    /// Gives apt these entries and their lists; `SITE` in them is the mirror's directory.
    pub(crate) fn update(&self, file: &str, entries: &str) -> std::io::Result<()> {
        let path = self.directory.path();
        let entries = entries.replace("SITE", &path.display().to_string());
        fs::write(path.join("parts").join(file), entries)?;
        let update = self.command("apt-get").args(["-qq", "update"]).output()?;
        assert!(update.status.success(), "{}", String::from_utf8_lossy(&update.stderr));
        Ok(())
    }

    /// What apt-sources prints where apt has these entries.
    fn sources(&self, file: &str, entries: &str, suites: &[&str]) -> std::io::Result<String> {
        let path = self.directory.path();
        self.update(file, entries)?;
        let script = repository().join("images/apt-sources");
        let output = self.command(script).args(suites).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.replace(&path.display().to_string(), "SITE"))
    }
}

/// Adds a suite with the component main to an archive.
pub(crate) fn add_suite(
    archive: &Path,
    suite: &str,
    label: &str,
    packages: &str,
    packages_sha256: &str,
) -> std::io::Result<()> {
    let suite_directory = archive.join("dists").join(suite);
    fs::create_dir_all(suite_directory.join("main/binary-amd64"))?;
    fs::write(suite_directory.join("main/binary-amd64/Packages"), packages)?;
    let release = format!(
        "Origin: Debian\nLabel: {label}\nSuite: {suite}\nCodename: {suite}\n\
         Date: Sat, 10 Jun 2023 09:00:00 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n \
         {packages_sha256} {} main/binary-amd64/Packages\n",
        packages.len()
    );
    fs::write(suite_directory.join("Release"), release)
}

/// Elsewhere than on Debian there is no apt.
pub(crate) fn has_apt() -> bool {
    Command::new("apt-get").arg("--version").output().is_ok()
}

#[test]
fn newer_suites_come_from_the_mirror_that_lines_name() -> Result {
    if !has_apt() {
        return not_judged("lines", "there is no apt-get");
    }
    let entries = "# The site's.\n\n\
        deb [trusted=yes] file:SITE/other bookworm-backports main\n\
        #deb [trusted=yes] file:SITE/old bookworm main\n\
        deb [ arch=amd64 arch-=i386 trusted=yes ] file:SITE/mirror bookworm main # release\n\
        deb [trusted=yes] file:SITE/security bookworm-security main\n";
    assert_eq!(
        Site::new()?.sources("site.list", entries, &["trixie", "bookworm-security"])?,
        "Types: deb\nSuites: trixie\nComponents: main\nArchitectures: amd64\nArchitectures-Remove: i386\n\
         trusted: yes\nURIs: file:SITE/mirror\n\n\
         Types: deb\nSuites: bookworm-security\nComponents: main\ntrusted: yes\nURIs: file:SITE/security\n\n"
    );
    Ok(())
}

#[test]
fn newer_suites_come_from_the_mirror_that_stanzas_name_with_its_keys() -> Result {
    if !has_apt() {
        return not_judged("stanzas", "there is no apt-get");
    }
    let entries = "# The site's.\n\n\
        Types: deb\nEnabled: no\nURIs: file:SITE/old\nSuites: bookworm\nComponents: main\n\n\
        Types: deb\n# Within.\nURIs: file:SITE/mirror\nSuites:\n bookworm\nComponents: main\nTrusted: yes\n\
        Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQIN\n -----END PGP PUBLIC KEY BLOCK-----\n";
    assert_eq!(
        Site::new()?.sources(
            "site.sources",
            entries,
            &["bookworm-backports", "bookworm-security"]
        )?,
        "URIs: file:SITE/mirror\nTrusted: yes\n\
         Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQIN\n -----END PGP PUBLIC KEY BLOCK-----\n\
         Types: deb\nSuites: bookworm-backports\nComponents: main\n\n"
    );
    Ok(())
}

/// The repository's scripts, by their first line.
fn scripts_below(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            scripts_below(&path, found)?;
        } else if fs::read(&path)?.starts_with(b"#!") {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn no_script_names_the_host_of_an_archive() -> Result {
    let mut scripts = vec![repository().join("Makefile")];
    for directory in [".ci", "images", "tests"] {
        scripts_below(&repository().join(directory), &mut scripts)?;
    }
    assert!(scripts.len() > 8, "only these were found: {scripts:?}");
    for script in scripts {
        let text = fs::read_to_string(&script)?;
        // `{http://...}` is a namespace of XML in Python's spelling, a name that nobody looks up.
        let is_address = |line: &&str| line.contains("://") && !line.contains("\"{http://");
        assert_eq!(text.lines().find(is_address), None, "{}", script.display());
    }
    Ok(())
}

/// What a `cargo test` of two programs prints, with libtest's two threads in the one and one test after
/// another in the other, which is a file that names libtest-mimic.
const TWO_PROGRAMS: &str = r#"
echo "     Running unittests src/lib.rs (target/debug/deps/parallel-0123456789abcdef)"
echo "running 3 tests"; sleep 0.2
echo "test b_is_quick ... ok"; sleep 1.3
echo "test c_began_when_b_ended ... ok"; sleep 0.5
echo "test a_took_all_the_time ... ok"
echo "test result: ok. 3 passed; 0 failed"
echo "     Running tests/serial.rs (SITE/serial-0123456789abcdef)"
echo "running 2 tests"; sleep 0.2
echo "test first_is_quick           ... ok"
printf "test [kind] second_says_something ... "; sleep 0.6; echo "what it says"; sleep 0.6; echo "FAILED"
echo "test result: FAILED. 1 passed; 1 failed"
echo "what went wrong" >&2
exit 7
"#;

#[test]
fn times_tell_slow_tests_and_change_neither_output_nor_status() -> Result {
    let site = TempDir::new()?;
    let path = site.path().display().to_string();
    fs::write(site.path().join("serial-0123456789abcdef"), "libtest_mimic")?;
    let timed = |arguments: &[&str]| {
        Command::new(repository().join("tests/timed"))
            .args(arguments)
            .env("VSLICE_TIMES", site.path().join("times"))
            .env("RUST_TEST_THREADS", "2")
            .output()
    };
    let program = TWO_PROGRAMS.replace("SITE", &path);
    let plain = Command::new("sh").args(["-c", &program.replace("sleep", ":")]).output()?;
    let output = timed(&["--tests", "sh", "-c", &program])?;
    assert_eq!(output.status.code(), Some(7));
    let said = [plain.stdout, plain.stderr].concat();
    assert_eq!(String::from_utf8(output.stdout)?, String::from_utf8(said)?);

    let phase = timed(&["a phase", "sh", "-c", "echo out; echo error >&2; sleep 0.2; exit 3"])?;
    assert_eq!(phase.status.code(), Some(3));
    assert_eq!(
        (phase.stdout.as_slice(), phase.stderr.as_slice()),
        (&b"out\n"[..], &b"error\n"[..])
    );

    let shown = String::from_utf8(timed(&["--show"])?.stdout)?;
    let seconds = |name: &str| -> Option<f64> {
        let line = shown.lines().find(|line| line.ends_with(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    // A busy machine makes nothing quicker; what took less than a second is in no list.
    for (name, least) in [
        ("  a phase", 0.2),
        ("  parallel src/lib.rs", 2.0),
        ("parallel src/lib.rs: a_took_all_the_time", 2.0),
        ("parallel src/lib.rs: c_began_when_b_ended", 1.3),
        ("  serial", 1.4),
        ("serial: second_says_something", 1.2),
    ] {
        let took = seconds(name).ok_or(format!("no {name} in {shown}"))?;
        assert!((least - 0.1..least + 3.0).contains(&took), "{name}: {took} in {shown}");
    }
    assert_eq!(seconds("is_quick"), None, "{shown}");
    Ok(())
}
