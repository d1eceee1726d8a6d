//! The job file that people submit, and what lets any of them run.

use crate::job::Phase;
use crate::json::{Json, Kind, Object};
use crate::sys::files;
use crate::yaml;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A job file is read whole; in bytes.
const LARGEST_JOB: u64 = 16 << 20;

/// Reads a job file, JSON or YAML, as JSON.
///
/// # Errors
/// A sentence with the place of the fault.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let wrong = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let text = files::read_named(path, LARGEST_JOB)
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
        .map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
    let document = match Json::parse(&text) {
        Ok(_) => text,
        Err(_) => yaml::parse(&text)
            .and_then(|document| document.root.to_json())
            .map_err(|error| wrong(&error))?,
    };
    let job = Json::parse(&document).map_err(|error| wrong(&error))?;
    if job.kind() != Kind::Object {
        return Err(wrong(
            &"this is no job; wanted: a map of keys such as test_data",
        ));
    }
    if job.get("job_queue").is_some() {
        return Ok(document);
    }
    // Every queue is as good as another here.
    let mut whole = Object::new();
    for (name, value) in job.members() {
        whole.json(&name, value);
    }
    whole.string("job_queue", "run");
    Ok(whole.finish())
}

/// The configuration for those who have none: it runs the job's `test_cmds`, a
/// script or a list of commands, out of files in `directory`.
///
/// # Errors
/// When they cannot be written.
pub(super) fn built_in_config(document: &str, directory: &Path) -> io::Result<String> {
    let job = Json::parse(document).ok();
    let commands = job.and_then(|job| job.get(&format!("{}_data", Phase::Test))?.get("test_cmds"));
    let command = match commands {
        Some(list) if list.kind() == Kind::Array => {
            let commands: Vec<_> = list.items().filter_map(Json::string).collect();
            one_after_the_other(&commands, directory)?
        }
        Some(script) => written(&script.string().unwrap_or_default(), directory, "test_cmds")?,
        None => "echo 'the job has no test_cmds'".to_owned(),
    };
    let mut config = Object::new();
    config.string("agent_id", "run");
    config.string("server_address", "localhost");
    config.strings("job_queues", &["run"]);
    config.string(
        "results_basedir",
        &directory.join("results").to_string_lossy(),
    );
    config.string("test_command", &command);
    Ok(config.finish())
}

/// A command that runs each of these, also after one that failed, and fails if
/// any of them did.
fn one_after_the_other(commands: &[String], directory: &Path) -> io::Result<String> {
    let mut script = String::from("failed=0\n");
    for (at, command) in commands.iter().enumerate() {
        let run = written(command, directory, &format!("test_cmds.{at}"))?;
        // In a shell of its own, so that an exit ends only this one.
        script.push_str(&format!("({run}) || failed=$?\n"));
    }
    script.push_str("exit $failed\n");
    Ok(script)
}

/// Writes a script down; the command that runs it. One that does not name its
/// interpreter gets bash, as upstream's connectors give it, or else sh.
fn written(script: &str, directory: &Path, name: &str) -> io::Result<String> {
    let path = directory.join(name);
    let mut file = files::create_fresh(&path)?;
    file.write_all(script.as_bytes())?;
    let quoted = format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"));
    if script.starts_with("#!") {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(quoted)
    } else {
        Ok(format!(
            "if command -v bash >/dev/null; then bash {quoted}; else sh {quoted}; fi"
        ))
    }
}
