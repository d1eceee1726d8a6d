//! The configuration as phase commands see it.

use super::Config;
use super::fields::Fields;
use super::keys::KEYS;

/// Every text of the configuration under its key, as the original exports it.
/// Directories are absolute, because commands run in one of their own.
pub(super) fn of(fields: &Fields<'_>, config: &Config) -> Vec<(String, String)> {
    let directory = |name| match name {
        "execution_basedir" => Some(&config.execution_basedir),
        "logging_basedir" => Some(&config.logging_basedir),
        "results_basedir" => Some(&config.results_basedir),
        _ => None,
    };
    let mut environment = Vec::new();
    for key in KEYS.iter().filter(|key| !key.kind.is_our_own()) {
        let text = match directory(key.name) {
            Some(path) => Some(path.to_string_lossy().into_owned()),
            None => fields.given_text(key.name).map(str::to_owned),
        };
        let default = || key.kind.is_text().then(|| key.default.to_owned());
        if let Some(text) = text.or_else(default) {
            environment.push((key.name.to_owned(), text));
        }
    }
    environment
}
