use super::*;
use std::os::unix::fs::symlink;

const NAME: &str = "attach-2026-11-30T03-12-00Z";
const OWN: &str = r#"{ "schema": "vslice.run/2", "plan_name": "attach", "vms": [] }"#;

fn folder() -> (tempfile::TempDir, Folder) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder::open(&scratch.path().join("there/runs")).unwrap();
    (scratch, folder)
}

fn run_in(folder: &Folder, name: &str, run_json: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir(&path).unwrap();
    for (name, text) in [("run.json", run_json), ("events-0.vsr", "abc"), (".reserve", "   ")] {
        fs::write(path.join(name), text).unwrap();
    }
    path
}

fn names(folder: &Folder) -> Vec<String> {
    folder.ended_runs(&[]).unwrap().into_iter().map(|run| run.name).collect()
}

#[test]
fn names_are_when_a_run_began_and_no_other_is_one() {
    let (_scratch, folder) = folder();
    assert_eq!(folder.new_name(1_796_008_320).unwrap(), NAME);
    run_in(&folder, NAME, OWN);
    let second = folder.new_name(1_796_008_320).unwrap();
    assert_eq!(second, format!("{NAME}-02"));
    symlink("nowhere", folder.path().join(&second)).unwrap();
    assert_eq!(folder.new_name(1_796_008_320).unwrap(), format!("{NAME}-03"));
    assert!(is_run_name(NAME) && is_run_name(&second));
    for name in [
        "attach-1796008320",
        "attach-2026-11-30T03-12-00",
        "attach-2026-11-30T03-12-00Z-2",
        "web-2026-11-30T03-12-00Z",
        "attach-2026-11-30T03-12-00Z-002",
        "attach-2026-11-30T03-12-00Zmine",
        "attach-2026-11-3\u{e9}T03-12-00Z",
        "",
    ] {
        assert!(!is_run_name(name), "{name}");
    }
}

#[test]
fn only_directories_with_such_a_name_are_its_runs() {
    let (scratch, folder) = folder();
    let kept = run_in(&folder, "attach-2026-11-30T03-12-00Z-mine", OWN);
    run_in(&folder, NAME, OWN);
    run_in(&folder, &format!("{NAME}-02"), OWN);
    fs::write(folder.path().join(format!("{NAME}-03")), "a file").unwrap();
    symlink(&kept, folder.path().join(format!("{NAME}-04"))).unwrap();
    symlink(scratch.path(), folder.path().join(format!("{NAME}-05"))).unwrap();
    assert_eq!(names(&folder), [NAME.to_owned(), format!("{NAME}-02")]);
    let ended = folder.ended_runs(&[NAME]).unwrap();
    assert_eq!(ended.len(), 1, "what is being recorded has not ended");
    assert!(ended[0].bytes > 0);
    assert_eq!(folder.run_bytes(&ended[0].name), ended[0].bytes);
}

#[test]
fn a_run_is_removed_and_nothing_that_is_not_one() {
    let (_scratch, folder) = folder();
    let own = run_in(&folder, NAME, OWN);
    fs::write(own.join("report.txt"), "").unwrap();
    folder.remove(NAME).unwrap();
    assert!(!own.exists());
    folder.remove(NAME).expect("somebody has removed it already");
    // A recorder that was killed at once.
    fs::create_dir(&own).unwrap();
    folder.remove(NAME).unwrap();
    assert!(!own.exists());

    let stays = |make: &dyn Fn(&Path)| {
        let path = run_in(&folder, NAME, OWN);
        make(&path);
        let count = || fs::read_dir(&path).unwrap().count();
        let before = count();
        let error = folder.remove(NAME).unwrap_err();
        assert_eq!(count(), before, "{error}");
        fs::remove_dir_all(&path).unwrap();
        error.to_string()
    };
    let notes = stays(&|path| fs::write(path.join("notes.txt"), "mine").unwrap());
    assert_eq!(notes, "it has \"notes.txt\", which is no file of a run");
    let folder_in_it = stays(&|path| fs::create_dir(path.join("x.vsr")).unwrap());
    assert!(folder_in_it.contains("\"x.vsr\""), "{folder_in_it}");
    let link = stays(&|path| symlink("/etc/passwd", path.join("x.vsr")).unwrap());
    assert!(link.contains("\"x.vsr\""), "{link}");
    for other in [
        r#"{ "schema": "vslice.run/2", "plan_name": "demo" }"#,
        r#"{ "schema": "another", "plan_name": "attach" }"#,
        "{",
    ] {
        let error = stays(&|path| fs::write(path.join("run.json"), other).unwrap());
        assert_eq!(error, "its run.json is not that of an attached recording");
    }
}

#[test]
fn a_link_in_the_place_of_a_run_is_not_followed() {
    let (scratch, folder) = folder();
    let users = scratch.path().join("users");
    fs::create_dir(&users).unwrap();
    fs::write(users.join("run.json"), OWN).unwrap();
    symlink(&users, folder.path().join(NAME)).unwrap();
    assert!(matches!(folder.remove(NAME), Err(NotRemoved::Io(_))));
    assert!(users.join("run.json").exists() && folder.path().join(NAME).is_symlink());
}

#[test]
fn a_folder_is_one_recordings() {
    let (_scratch, folder) = folder();
    let error = Folder::open(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("another vslice records into "), "{error}");
    let path = folder.path().to_owned();
    drop(folder);
    Folder::open(&path).unwrap();
}
