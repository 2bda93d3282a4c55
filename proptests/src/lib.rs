//! What the properties and the end-to-end suites compare thmanyah with. Nothing here uses its code.

pub mod oracle;
