//! The scripts that get what vslice needs: from where they take it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use vslice_tests::not_judged;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Not empty, for apt keeps no empty lists.
const PACKAGES: &str = "Package: vslice\nVersion: 1\nArchitecture: all\n";
const PACKAGES_SHA256: &str = "1ac840187aff184c18ea602410df320935937e67f0df320f2deca7f2066cc060";

/// A site's mirror of Debian, its security archive and something else, and an apt that knows nothing more.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new() -> std::io::Result<Site> {
        let directory = TempDir::new()?;
        for (archive, suite, label) in [
            ("other", "bookworm-backports", "Debian Backports"),
            ("mirror", "bookworm", "Debian"),
            ("security", "bookworm-security", "Debian-Security"),
        ] {
            let suite_directory = directory.path().join(archive).join("dists").join(suite);
            fs::create_dir_all(suite_directory.join("main/binary-amd64"))?;
            fs::write(suite_directory.join("main/binary-amd64/Packages"), PACKAGES)?;
            let release = format!(
                "Origin: Debian\nLabel: {label}\nSuite: {suite}\nCodename: {suite}\n\
                 Date: Sat, 10 Jun 2023 09:00:00 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n \
                 {PACKAGES_SHA256} {} main/binary-amd64/Packages\n",
                PACKAGES.len()
            );
            fs::write(suite_directory.join("Release"), release)?;
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

    /// What apt-sources prints where apt has these entries; `SITE` in them is the mirror's directory.
    fn sources(&self, file: &str, entries: &str, suites: &[&str]) -> std::io::Result<String> {
        let path = self.directory.path();
        let entries = entries.replace("SITE", &path.display().to_string());
        fs::write(path.join("parts").join(file), entries)?;
        let apt = |program: &str| {
            let mut command = Command::new(program);
            command.env("APT_CONFIG", path.join("apt.conf"));
            command
        };
        let update = apt("apt-get").args(["-qq", "update"]).output()?;
        assert!(update.status.success(), "{}", String::from_utf8_lossy(&update.stderr));
        let script = repository().join("images/apt-sources");
        let output = apt(&script.display().to_string()).args(suites).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.replace(&path.display().to_string(), "SITE"))
    }
}

/// Elsewhere than on Debian there is no apt.
fn has_apt() -> bool {
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
        assert_eq!(text.lines().find(|line| line.contains("://")), None, "{}", script.display());
    }
    Ok(())
}
