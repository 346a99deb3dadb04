//! What happened and whose it is: members hear of what is their project's, administrators of everything.

use rackmem_api::Event;
use rackmem_api::controller::Who;
use serde::{Deserialize, Serialize};

/// An event as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct News {
    #[serde(flatten)]
    pub(crate) event: Event,
    /// Whose it is; none for what is only administrators' affair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<String>,
}

impl News {
    pub(crate) fn is_for(&self, who: &Who) -> bool {
        who.project.is_none() || self.project.as_deref().is_some_and(|project| who.sees(project))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_that_were_stored_before_they_had_an_owner_are_for_administrators() {
        let text = r#"{"id":7,"at_ms":1,"kind":"vm.difference","target":"web1","detail":"it is off"}"#;
        let news: News = serde_json::from_str(text).unwrap();
        assert_eq!((news.event.id, &news.project), (7, &None));
        assert_eq!(serde_json::to_string(&news).unwrap(), text);
    }
}
