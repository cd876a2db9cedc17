//! The page: the files that browsers get, and [`page`], which serves them.

pub(crate) mod page;
