//! Archives that strangers could make.

use super::*;
use crate::archive::scratch::Scratch;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::os::unix::fs::MetadataExt;
use tar::Header;

const FOLDERS: &[&str] = &["provision", "firmware_update", "test"];

fn gzipped(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

/// An entry whose name is not looked at by who writes it.
fn entry(kind: EntryType, name: &str, target: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "", 0o644, content.as_bytes())
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = entries.concat();
    tar.resize(tar.len() + 1_024, 0);
    gzipped(&tar)
}

fn unpack_into(directory: &Path, archive: &[u8]) -> Result<(), Fault> {
    let room = Room {
        directory: &File::open(directory).unwrap(),
        folders: FOLDERS,
        owner: None,
        bytes: 1 << 20,
    };
    unpack(&mut &*archive, &room)
}

/// The scratch directory, in which `in` is where the archive is unpacked.
fn unpacked(archive: &[u8]) -> (Scratch, Result<(), Fault>) {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("in")).unwrap();
    let result = unpack_into(&scratch.path("in"), archive);
    (scratch, result)
}

fn refused(archive: &[u8]) -> String {
    let (scratch, result) = unpacked(archive);
    let outside: Vec<_> = fs::read_dir(scratch.path("")).unwrap().collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
    match result {
        Err(Fault::Archive(reason) | Fault::Disk(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn row_36_what_leads_elsewhere_is_refused() {
    for (name, why) in [
        ("../out", "leads out"),
        ("test/../../out", "leads out"),
        ("/test/file", "absolute"),
        ("elsewhere/file", "is not below provision/"),
        ("file", "is not below"),
        ("testing/file", "is not below"),
        ("test", "is none"),
    ] {
        let said = refused(&archive(&[file(name, "x")]));
        assert!(said.contains(why), "{name}: {said}");
    }
    for target in ["/etc/passwd", "../../out", "a/../../../out", ""] {
        let link = entry(EntryType::Symlink, "test/link", target, 0o777, b"");
        let said = refused(&archive(&[link]));
        assert!(said.contains("link"), "{target}: {said}");
        let link = entry(EntryType::Link, "test/link", target, 0o777, b"");
        refused(&archive(&[link]));
    }
    for kind in [
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Block,
        EntryType::GNUSparse,
    ] {
        let said = refused(&archive(&[entry(kind, "test/x", "", 0o666, b"")]));
        assert!(said.contains("neither a file"), "{kind:?}: {said}");
    }
}

#[test]
fn row_36_nothing_is_written_through_a_link() {
    let link = entry(EntryType::Symlink, "test/link", "..", 0o777, b"");
    let said = refused(&archive(&[link, file("test/link/x", "x")]));
    assert!(said.contains("cannot be made"), "{said}");
    // Two links that are good by themselves, and bad together.
    let up = entry(EntryType::Symlink, "test/a/up", "..", 0o777, b"");
    let out = entry(EntryType::Symlink, "test/out", "a/up/../..", 0o777, b"");
    let said = refused(&archive(&[up, out]));
    assert!(said.contains("a step up (..) behind a name"), "{said}");
}

#[test]
fn row_36_what_is_good_is_there_and_harmless() {
    let program = entry(EntryType::Regular, "test/tool", "", 0o6777, b"#!");
    let shut = entry(EntryType::Regular, "./provision/a/shut", "", 0, b"shut");
    let directory = entry(EntryType::Directory, "test/empty/", "", 0o1000, b"");
    let link = entry(
        EntryType::Symlink,
        "test/link",
        "../provision/a/shut",
        0o777,
        b"",
    );
    let again = entry(EntryType::Link, "test/again", "test/tool", 0o777, b"");
    let entries = [
        entry(EntryType::Directory, "./", "", 0o755, b""),
        program,
        shut,
        directory,
        link,
        again,
        file("test/tool2", "old"),
        file("test/tool2", "new"),
    ];
    let (scratch, result) = unpacked(&archive(&entries));
    result.unwrap();
    let at = |name: &str| scratch.path("in").join(name);
    let mode = |name: &str| fs::metadata(at(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("test/tool"), 0o755);
    assert_eq!(mode("provision/a/shut"), 0o600);
    assert_eq!(mode("test/empty"), 0o755);
    assert_eq!(fs::read(at("test/link")).unwrap(), b"shut");
    assert_eq!(fs::read(at("test/tool2")).unwrap(), b"new");
    let tool = fs::metadata(at("test/tool")).unwrap();
    assert_eq!((tool.nlink(), tool.mtime()), (2, 1_000_000_000));
}

/// Python's tarfile adds a link as often as it is asked to.
#[test]
fn what_is_there_twice_is_what_it_is_last() {
    let link = |name: &str, target: &str| entry(EntryType::Symlink, name, target, 0o777, b"");
    let same = |name: &str, of: &str| entry(EntryType::Link, name, of, 0o777, b"");
    let entries = [
        file("test/file", "content"),
        link("test/link", "nowhere"),
        link("test/link", "file"),
        same("test/a/same", "test/file"),
        same("test/a/same", "test/file"),
        same("test/file", "test/file"),
        file("test/was-file", "old"),
        link("test/was-file", "file"),
        link("test/was-link", "file"),
        file("test/was-link", "new"),
        // To a link: it leads to the same, from where it is.
        same("test/other", "test/link"),
    ];
    let (scratch, result) = unpacked(&archive(&entries));
    result.unwrap();
    let at = |name: &str| scratch.path("in").join(name);
    for name in ["link", "a/same", "was-file", "other", "file"] {
        assert_eq!(
            fs::read(at("test").join(name)).unwrap(),
            b"content",
            "{name}"
        );
    }
    for name in ["link", "was-file", "other"] {
        assert_eq!(
            fs::read_link(at("test").join(name)).unwrap(),
            Path::new("file")
        );
    }
    let was_link = fs::symlink_metadata(at("test/was-link")).unwrap();
    assert!(was_link.is_file());
    // Each step up is looked at where the link is.
    let up = link("test/a/link", "../file");
    let out = same("test/link", "test/a/link");
    assert!(unpacked(&archive(&[up, out])).1.is_ok());
    let up = link("test/a/link", "../../provision");
    let out = same("test/link", "test/a/link");
    let said = refused(&archive(&[up, out]));
    assert!(said.contains("leads elsewhere"), "{said}");
    for entry in [link("test", "provision"), same("test", "test/file")] {
        let said = refused(&archive(&[entry]));
        assert!(said.contains("has the name of a directory"), "{said}");
    }
}

/// What the CLI and people use.
#[test]
fn archives_of_other_programs_are_unpacked() {
    let scratch = Scratch::new();
    let long = "long name ".repeat(20);
    let folder = scratch.path("from/test").join(&long);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("é".repeat(100)), "content").unwrap();
    symlink("é".repeat(100), folder.join("link")).unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let packed = scratch.path(format!("{format}.tar.gz"));
        let made = std::process::Command::new("tar")
            .arg(format!("--format={format}"))
            .arg("-C")
            .arg(scratch.path("from"))
            .arg("-czf")
            .arg(&packed)
            .arg(".")
            .output()
            .unwrap();
        // Old archives do not know such names.
        if format == "ustar" && !made.status.success() {
            continue;
        }
        assert!(made.status.success(), "{made:?}");
        let into = scratch.path(format!("into-{format}"));
        fs::create_dir(&into).unwrap();
        unpack_into(&into, &fs::read(packed).unwrap()).unwrap();
        let read = fs::read(into.join("test").join(&long).join("link"));
        assert_eq!(read.unwrap(), b"content");
    }
}

#[test]
fn row_37_what_is_too_much_is_refused() {
    let said = refused(&archive(&[file("test/x", &"x".repeat((1 << 20) + 1))]));
    assert!(said.contains("more than the 1048576 bytes"), "{said}");
    // A name of a gigabyte, of which nothing is there.
    let mut long = Header::new_gnu();
    long.set_entry_type(EntryType::GNULongName);
    long.set_size(1 << 30);
    long.set_cksum();
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
    ] {
        long.set_entry_type(kind);
        long.set_cksum();
        let said = refused(&archive(&[long.as_bytes().to_vec()]));
        assert!(said.contains("1073741824 bytes"), "{kind:?}: {said}");
    }
    let many: Vec<_> = (0..=MOST_ENTRIES)
        .map(|_| entry(EntryType::Directory, "test/", "", 0o755, b""))
        .collect();
    let said = refused(&archive(&many));
    assert!(said.contains("more than 100000 entries"), "{said}");
    let target = "t".repeat(99);
    let links: Vec<_> = (0..20_000)
        .map(|at| {
            entry(
                EntryType::Symlink,
                &format!("test/{at}"),
                &target,
                0o777,
                b"",
            )
        })
        .collect();
    assert!(refused(&archive(&links)).contains("too many links"));
    let mut endless = file("test/x", "x");
    endless.resize(endless.len() + (3 << 20), 0);
    assert!(refused(&gzipped(&endless)).contains("goes on"));
    let record = b"20 size=99999999999\n";
    let large = entry(EntryType::XHeader, "x", "", 0, record);
    assert!(refused(&archive(&[large, file("test/x", "x")])).contains("8 GiB"));
}

#[test]
fn row_37_what_is_cut_short_or_no_archive_is_refused() {
    let whole = archive(&[file("test/x", "content"), file("test/y", "more")]);
    for cut in 0..whole.len() {
        let (_, result) = unpacked(&whole[..cut]);
        assert!(matches!(result, Err(Fault::Archive(_))), "cut at {cut}");
    }
    let without_end = gzipped(&file("test/x", "content"));
    assert!(refused(&without_end).contains("has no end"));
    let mut damaged = whole.clone();
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    assert!(refused(&damaged).contains("broken"));
    for other in [&b""[..], b"<html>", b"PK\x03\x04", &[0; 4096]] {
        assert!(refused(other).contains("broken"));
    }
    refused(&gzipped(b"no tar at all".repeat(100).as_slice()));
    unpacked(&archive(&[])).1.unwrap();
}

/// Who could not receive it may try again.
#[test]
fn what_fails_at_its_source_is_not_the_archive_s_fault() {
    struct Broken(Vec<u8>, usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(byte) = self.0.get(self.1) else {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            };
            self.1 += 1;
            buffer[0] = *byte;
            Ok(1)
        }
    }
    let whole = archive(&[file("test/x", "content")]);
    let scratch = Scratch::new();
    let room = Room {
        directory: &File::open(scratch.path("")).unwrap(),
        folders: FOLDERS,
        owner: None,
        bytes: 1 << 20,
    };
    let mut broken = Broken(whole[..whole.len() - 9].to_vec(), 0);
    assert!(matches!(
        unpack(&mut broken, &room),
        Err(Fault::Source(error)) if error.kind() == io::ErrorKind::ConnectionReset
    ));
}

/// Several gzips one after the other are one (RFC 1952, section 2.2); what is none does
/// not matter.
#[test]
fn a_gzip_of_several_members_is_one_archive() {
    let mut tar = [file("test/a", "first"), file("test/b", "second")].concat();
    tar.resize(tar.len() + 1_024, 0);
    let (one, other) = tar.split_at(700);
    let mut archive = [gzipped(one), gzipped(other)].concat();
    for _ in 0..2 {
        let (scratch, result) = unpacked(&archive);
        result.unwrap();
        let read = |name: &str| fs::read_to_string(scratch.path("in").join(name)).unwrap();
        assert_eq!(
            (read("test/a"), read("test/b")),
            ("first".into(), "second".into())
        );
        archive.extend_from_slice(b"garbage");
    }
}
