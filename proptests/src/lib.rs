//! What the properties and the end-to-end suites compare thmanyah with, and how they drive it from outside.

pub mod bigquery_site;
pub mod board;
pub mod chaos;
pub mod checker;
pub mod deployment;
pub mod evidence;
pub mod feed;
pub mod flow;
pub mod http_lane;
pub mod oracle;
pub mod pages;
pub mod published;
pub mod redis_lane;
pub mod redis_view;
pub mod rows;
pub mod sim;
pub mod sizes;
pub mod table;
pub mod topics;
