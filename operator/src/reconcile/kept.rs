//! What was rendered once, and is kept until its inputs change.
//!
//! A newer operator may render the same inputs otherwise: another default, another order, a new probe. If that
//! reached a pod's template, its upgrade would restart every database. So the rendered value stands in an
//! annotation beside a digest of its inputs; as long as the inputs are the same, the kept value is used, and
//! hand edits of the object itself are still undone.
use kube::api::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Error;

/// Annotation that holds [`Kept`].
const ANNOTATION: &str = "data.culvert.dev/rendered";

/// A rendered value, with the digest of what it was rendered from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept<T> {
    /// Digest of the inputs.
    pub(crate) inputs: String,
    /// What was rendered from them.
    pub(crate) value: T,
}

impl<T: Serialize + DeserializeOwned> Kept<T> {
    /// What stands in an object; nothing when it cannot be read, so that it is rendered anew.
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        serde_json::from_str(metadata.annotations.as_ref()?.get(ANNOTATION)?).ok()
    }

    /// The value kept in `metadata`, if it came from the same inputs; else what `render` makes.
    pub(crate) fn or_render(
        metadata: Option<&ObjectMeta>,
        inputs: &impl Serialize,
        render: impl FnOnce() -> T,
    ) -> Result<Self, Error> {
        let inputs = digest(inputs)?;
        match metadata.and_then(Self::of).filter(|kept| kept.inputs == inputs) {
            Some(kept) => Ok(kept),
            None => Ok(Self { inputs, value: render() }),
        }
    }

    /// The annotation that keeps it.
    pub(crate) fn annotation(&self) -> Result<(String, String), Error> {
        Ok((ANNOTATION.to_owned(), serde_json::to_string(self).map_err(Error::making)?))
    }
}

/// SHA-256 of a value's JSON, the first 32 hexadecimal digits. Maps of ours are ordered, so it is stable.
pub(crate) fn digest(value: &impl Serialize) -> Result<String, Error> {
    let json = serde_json::to_vec(value).map_err(Error::making)?;
    Ok(Sha256::digest(json).iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(kept: &Kept<String>) -> ObjectMeta {
        let annotations = [kept.annotation().unwrap()].into();
        ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() }
    }

    #[test]
    fn the_same_inputs_keep_what_an_older_operator_rendered() {
        let old = Kept::or_render(None, &("spec", 1), || "as the old one rendered".to_owned()).unwrap();
        let metadata = holding(&old);
        let new = Kept::or_render(Some(&metadata), &("spec", 1), || "otherwise".to_owned()).unwrap();
        assert_eq!(new, old);
        let changed = Kept::or_render(Some(&metadata), &("spec", 2), || "otherwise".to_owned()).unwrap();
        assert_eq!(changed.value, "otherwise");
    }

    #[test]
    fn a_broken_annotation_is_rendered_anew() {
        let annotations = [(ANNOTATION.to_owned(), "{".to_owned())].into();
        let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        let kept = Kept::or_render(Some(&metadata), &1, || "anew".to_owned()).unwrap();
        assert_eq!(kept.value, "anew");
    }
}
