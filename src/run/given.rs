//! What a person gives to a job file beside it: files to attach, secrets. With a real
//! server, its command-line tool and its store of secrets do that.

use crate::job::ATTACHABLE;
use crate::json::{Json, Kind, Object};
use crate::sys::files;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// A secret becomes a variable; in bytes.
const LARGEST_SECRET: u64 = 64 << 10;

/// Gathers what a job attaches below `into`, as it will lie in the job's workspace.
/// The document as the server takes it, and whether there is something to attach.
///
/// # Errors
/// A sentence, when the job says it wrongly or a file cannot be read.
pub(super) fn attach(
    document: &str,
    job_file: &Path,
    into: &Path,
) -> Result<(String, bool), String> {
    let mut document = document.to_owned();
    let mut is_something = false;
    for phase in ATTACHABLE {
        let name = format!("{phase}_data");
        let job = Json::parse(&document).map_err(|error| error.to_string())?;
        let Some(data) = job.get(&name) else { continue };
        let Some(list) = data
            .get("attachments")
            .filter(|list| list.kind() == Kind::Array)
        else {
            continue;
        };
        let mut entries = Vec::new();
        for entry in list.items() {
            let wrong = |why: String| format!("{name}: attachments: {why}");
            let (local, inside) = names(entry).map_err(&wrong)?;
            let from = job_file.parent().unwrap_or(Path::new("")).join(&local);
            let to = Path::new(phase.name()).join(&inside);
            copy(&from, into, &to)
                .map_err(|error| wrong(format!("{}: {error}", from.display())))?;
            let mut shown = Object::new();
            shown.string("agent", &inside.to_string_lossy());
            if let Some(device) = entry.get("device") {
                shown.json("device", device);
            }
            entries.push(shown);
        }
        is_something |= !entries.is_empty();
        let mut changed = without(data, "attachments");
        if !entries.is_empty() {
            changed.objects("attachments", entries.into_iter());
        }
        let mut whole = without(job, &name);
        whole.object(&name, changed);
        document = whole.finish();
    }
    Ok((document, is_something))
}

/// Where an attachment is, relative to the job file, and its name on the agent's side.
fn names(entry: Json<'_>) -> Result<(PathBuf, PathBuf), String> {
    let text = |name: &str| entry.get(name).and_then(Json::string);
    let local = text("local").ok_or("wanted: a list of maps with `local`, a path")?;
    let agent = text("agent").unwrap_or_else(|| local.clone());
    let mut inside = PathBuf::new();
    for part in Path::new(&agent).components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(format!("{agent} leads out of its directory")),
        }
    }
    match inside.as_os_str().is_empty() {
        true => Err(format!("{agent:?} is no name")),
        false => Ok((local.into(), inside)),
    }
}

/// Copies a file, or a directory with all in it, to a place below `into`; links stay
/// links, and nothing is written through one. What is there already is replaced.
fn copy(from: &Path, into: &Path, to: &Path) -> io::Result<()> {
    let mut parent = into.to_owned();
    make_directory(&parent)?;
    for part in to.parent().unwrap_or(Path::new("")) {
        parent.push(part);
        make_directory(&parent)?;
    }
    let place = into.join(to);
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        make_directory(&place)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), into, &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if fs::symlink_metadata(&place).is_ok() {
        fs::remove_file(&place)?;
    }
    if metadata.is_symlink() {
        symlink(fs::read_link(from)?, place)
    } else if metadata.is_file() {
        fs::copy(from, place).map(drop)
    } else {
        Err(io::Error::other("it is neither a file nor a directory"))
    }
}

/// Makes a directory where there is none.
fn make_directory(place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(place)?,
        Err(_) => {}
    }
    fs::create_dir(place)
}

/// The document with these secrets for its test phase: `NAME=FILE`, without the end of
/// the file's last line.
///
/// # Errors
/// A sentence, when one cannot be read, or the job has no test phase. It holds no
/// secret.
pub(super) fn with_secrets(document: &str, secrets: &[String]) -> Result<String, String> {
    let mut document = document.to_owned();
    for secret in secrets {
        let wrong = |why: &str| format!("--secret {secret}: {why}");
        let (name, path) = secret
            .split_once('=')
            .filter(|(name, path)| !name.is_empty() && !path.is_empty())
            .ok_or_else(|| wrong("wanted: NAME=FILE"))?;
        let bytes = files::read_named(Path::new(path), LARGEST_SECRET)
            .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
        let value = text.strip_suffix('\n').unwrap_or(&text);
        let job = Json::parse(&document).map_err(|error| error.to_string())?;
        let data = job
            .get("test_data")
            .filter(|data| data.kind() == Kind::Object)
            .ok_or_else(|| wrong("the job has no test_data, and no phase that would find it"))?;
        let known = data.get("secrets");
        let mut all = known.map_or_else(Object::new, |known| without(known, name));
        all.string(name, value);
        let mut changed = without(data, "secrets");
        changed.object("secrets", all);
        let mut whole = without(job, "test_data");
        whole.object("test_data", changed);
        document = whole.finish();
    }
    Ok(document)
}

/// An object's members but one.
fn without(object: Json<'_>, name: &str) -> Object {
    let mut others = Object::new();
    for (member, value) in object.members().filter(|(member, _)| member != name) {
        others.json(&member, value);
    }
    others
}
