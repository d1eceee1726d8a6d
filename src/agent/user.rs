//! As whom the commands of the phases run.

use crate::config::Config;
use crate::sys::{self, User, files};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The user that a configuration names, if it names one.
///
/// # Errors
/// A sentence, when there is none of that name, or this process cannot become them.
pub(super) fn of(config: &Config) -> Result<Option<User>, String> {
    let name = &config.run_as;
    if name.is_empty() {
        return Ok(None);
    }
    let user = User::find(name)
        .map_err(|error| format!("run_as: cannot look for the user {name}: {error}"))?;
    let Some(user) = user else {
        return Err(format!("run_as: there is no user {name} in /etc/passwd"));
    };
    if user.uid == 0 {
        return Err(format!(
            "run_as: {name} may do everything, as the agent may; leave run_as out, or name another user"
        ));
    }
    if sys::effective_user() != 0 {
        return Err(format!(
            "run_as: only an agent that runs as root can run commands as {name}"
        ));
    }
    Ok(Some(user))
}

/// Makes sure that nobody else, and no user's commands, can put something into the
/// directory of the records: what is found there is believed.
///
/// # Errors
/// A sentence, when they can.
pub(super) fn keep_out(user: Option<&User>, basedir: &Path) -> Result<(), String> {
    let place = basedir.display();
    let metadata =
        fs::metadata(basedir).map_err(|error| format!("cannot look at {place}: {error}"))?;
    let who = match user {
        _ if files::is_open_to_all(&metadata) => "everybody".to_owned(),
        Some(user) if user.can_add(&metadata) => format!("the commands of {}", user.name),
        _ => return Ok(()),
    };
    Err(format!(
        "{who} could put records into {place}, and the agent would believe them: \
         `chmod g-w,o-w {place}` prevents that, or choose another results_basedir"
    ))
}

/// Lets a user's commands go through the directory in which their workspaces are;
/// makes sure that they can come there, and can put nothing else in its place.
///
/// # Errors
/// A sentence that says where that is not so.
pub(super) fn let_through(user: &User, basedir: &Path) -> Result<(), String> {
    let look = |place: &Path| {
        fs::metadata(place).map_err(|error| format!("cannot look at {}: {error}", place.display()))
    };
    let name = &user.name;
    let own = look(basedir)?;
    if !user.can_enter(&own) {
        // It is the agent's own, and only to be gone through.
        let mode = Permissions::from_mode(own.permissions().mode() | 0o011);
        fs::set_permissions(basedir, mode)
            .map_err(|error| format!("cannot change the mode of {}: {error}", basedir.display()))?;
    }
    let mut place = PathBuf::new();
    for part in basedir.components() {
        place.push(part);
        let metadata = look(&place)?;
        let (place, basedir) = (place.display(), basedir.display());
        if user.can_change(&metadata) {
            return Err(format!(
                "the commands of {name} could put another directory in the place of {basedir}, \
                 because {place} is theirs to change; choose another execution_basedir"
            ));
        }
        if !user.can_enter(&metadata) {
            return Err(format!(
                "the commands of {name} cannot come to {basedir}: `chmod o+x {place}` lets them \
                 through, or choose another execution_basedir"
            ));
        }
    }
    Ok(())
}
