//! The static program beside a database engine: start, health, back up, restore.
