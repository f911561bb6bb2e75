use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

impl DataDir {
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }
}

#[test]
fn job_folders_have_plain_names() {
    let folder = DataDir::at("/data");
    assert_eq!(
        folder.job("train_1"),
        Some(PathBuf::from("/data/jobs/train_1"))
    );
    let long = "x".repeat(NAME_MAX + 1);
    for hostile in ["", ".", "..", "a/b", "../x", "/etc", "a\0b", "a/", &long] {
        assert_eq!(folder.job(hostile), None, "{hostile:?}");
    }
}

#[test]
fn atomic_writes_leave_one_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_atomic(&path, b"a longer first text").unwrap();
    write_atomic(&path, b"second").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn bounded_reads_refuse_large_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, [b'x'; 2048]).unwrap();
    assert_eq!(read_bounded(&path, 2048).unwrap().len(), 2048);
    let error = read_bounded(&path, 2047).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    let error = read_bounded(dir.path(), 2048).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn pipes_and_devices_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let secrets = crate::redact::Redactor::default();
    for path in [
        pipe.as_path(),
        Path::new("/dev/tty"),
        Path::new("/dev/zero"),
    ] {
        assert!(open_regular(path).is_err(), "{path:?}");
        assert!(read_bounded(path, 2048).is_err(), "{path:?}");
        assert!(crate::text::read_tail(path, 2048).is_err(), "{path:?}");
        assert!(crate::logs::Log::open(path, &secrets).is_err(), "{path:?}");
    }
}

#[test]
fn kills_leave_no_temporary_files_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataDir::at(dir.path());
    let job = folder.job("train").unwrap();
    fs::create_dir_all(&job).unwrap();
    let killed = Command::new("true").spawn().unwrap();
    let (dead, own) = (killed.id(), std::process::id());
    killed.wait_with_output().unwrap();
    for place in [dir.path(), &job] {
        for name in [
            format!(".tmp-{dead}-x"),
            format!(".tmp-{own}-x"),
            ".tmp-me".to_owned(),
        ] {
            fs::write(place.join(name), "half").unwrap();
        }
    }
    folder.remove_temporary_files().unwrap();
    for place in [dir.path(), &job] {
        let left = |name: String| place.join(name).exists();
        assert!(
            !left(format!(".tmp-{dead}-x"))
                && left(format!(".tmp-{own}-x"))
                && left(".tmp-me".to_owned())
        );
    }
}

#[test]
fn existing_data_folder_keeps_its_rights() {
    let dir = tempfile::tempdir().unwrap();
    let rights = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let folder = DataDir::at(dir.path());
    folder.create().unwrap();
    assert_eq!((rights(dir.path()), rights(&folder.jobs())), (0o750, 0o700));
}

#[test]
fn without_its_lock_no_job_is_promised() {
    let home = tempfile::tempdir().unwrap();
    let folder = DataDir::at(home.path());
    folder.check().unwrap();
    fs::remove_file(folder.registry_lock()).unwrap();
    fs::create_dir(folder.registry_lock()).unwrap();
    let error = folder.check().unwrap_err().to_string();
    assert!(error.contains(HOME), "{error}");
}
