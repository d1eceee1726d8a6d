//! What the agent advertises: queues with descriptions, and their images.

use super::Error;
use super::fields::{Fields, shown};
use super::keys::Kind;
use crate::yaml::{Node, Value};

/// Names with a text each, in the order of the file.
type Texts = Vec<(String, String)>;

impl Fields<'_> {
    /// Queues with a description each.
    pub(super) fn descriptions(&self, name: &str) -> Result<Texts, Error> {
        let wanted = Kind::Descriptions.wanted();
        match self.get(name) {
            None => Ok(Vec::new()),
            Some((_, Value::Map(map))) => self.texts(name, map),
            Some((place, value)) => Err(self.wrong(place, name, value, wanted)),
        }
    }

    /// A map from names to texts; `subject` holds it.
    fn texts(&self, subject: &str, map: &[(Node, Node)]) -> Result<Texts, Error> {
        let mut texts = Vec::new();
        for (key, node) in map {
            let name = self.name_in(key, &format!("a key of {subject}"), &key.value)?;
            let text = match &node.value {
                Value::Null => "",
                value => {
                    let subject = format!("`{}` of {subject}", shown(&name));
                    self.text_in(node, &subject, value, Kind::Text.wanted())?
                }
            };
            texts.push((name, text.to_owned()));
        }
        Ok(texts)
    }

    /// Queues with their images and the provision data of each. The original's
    /// example has a list of maps where one map would do; both are understood.
    pub(super) fn images(&self, name: &str) -> Result<Vec<(String, Texts)>, Error> {
        let wanted = Kind::Images.wanted();
        let map = match self.get(name) {
            None => return Ok(Vec::new()),
            Some((_, Value::Map(map))) => map,
            Some((place, value)) => return Err(self.wrong(place, name, value, wanted)),
        };
        let mut queues = Vec::new();
        for (key, node) in map {
            let queue = self.name_in(key, &format!("a key of {name}"), &key.value)?;
            let subject = format!("`{}` of {name}", shown(&queue));
            let parts = match &node.value {
                Value::Null => &[],
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            let mut images: Texts = Vec::new();
            for part in parts {
                let Value::Map(map) = &part.value else {
                    let wanted = "a map from images to their provision data";
                    return Err(self.wrong(part, &subject, &part.value, wanted));
                };
                for (image, data) in self.texts(&subject, map)? {
                    images.retain(|(known, _)| *known != image);
                    images.push((image, data));
                }
            }
            queues.push((queue, images));
        }
        Ok(queues)
    }
}
