//! A content row, and the part of it that a join needs.

use super::{ContentId, Offset, Partition, Timestamp};
use serde::{Deserialize, Serialize};

/// Kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContentType {
    /// Audio episode.
    Podcast,
    /// Written issue.
    Newsletter,
    /// Video.
    Video,
}

impl ContentType {
    /// Every content type, in the order of the table's CHECK constraint.
    pub const ALL: [Self; 3] = [Self::Podcast, Self::Newsletter, Self::Video];

    /// The name in PostgreSQL and in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Podcast => "podcast",
            Self::Newsletter => "newsletter",
            Self::Video => "video",
        }
    }

    /// The content type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A validated row of `content`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRow {
    /// Primary key.
    pub id: ContentId,
    /// URL name.
    pub slug: Option<String>,
    /// Title, any language.
    pub title: Option<String>,
    /// Kind.
    pub content_type: Option<ContentType>,
    /// Length in seconds, never negative.
    pub length_seconds: Option<i32>,
    /// When it was published.
    pub publish_ts: Option<Timestamp>,
}

/// Which write of a content row was joined: its place in `content.changelog`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentVersion {
    /// Partition of the changelog.
    pub partition: Partition,
    /// Offset in that partition.
    pub offset: Offset,
}

/// What a join takes from a content row. Small and `Copy`, so that a cache can hold many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinContent {
    /// Kind.
    pub content_type: Option<ContentType>,
    /// Length in seconds, never negative.
    pub length_seconds: Option<i32>,
    /// Which write of the row this is.
    pub version: ContentVersion,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_have_the_names_of_the_tables_constraint() {
        assert_eq!(
            ContentType::ALL.map(ContentType::name),
            ["podcast", "newsletter", "video"]
        );
        for kind in ContentType::ALL {
            assert_eq!(ContentType::from_name(kind.name()), Some(kind));
        }
        assert_eq!(ContentType::from_name("Podcast"), None);
    }
}
