use super::*;

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
    for path in [
        pipe.as_path(),
        Path::new("/dev/tty"),
        Path::new("/dev/zero"),
    ] {
        assert!(open_regular(path).is_err(), "{path:?}");
        assert!(read_bounded(path, 2048).is_err(), "{path:?}");
        assert!(crate::text::read_tail(path, 2048).is_err(), "{path:?}");
        assert!(crate::logs::Log::open(path).is_err(), "{path:?}");
    }
}
