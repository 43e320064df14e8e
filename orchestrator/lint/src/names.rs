//! Paths: as they are written, and as patterns name them.

/// Whether this path is what the pattern says: the same, or for `a::b::*` anything below `a::b`, for `a_*` any crate whose
/// name begins so.
pub(crate) fn matches(pattern: &str, path: &[String]) -> bool {
    let Some(start) = pattern.strip_suffix('*') else {
        return pattern.split("::").eq(path.iter().map(String::as_str));
    };
    match start.strip_suffix("::") {
        Some(room) => {
            let room: Vec<&str> = room.split("::").collect();
            path.len() > room.len() && room.iter().zip(path).all(|(room, part)| room == part)
        }
        None => path.first().is_some_and(|name| name.starts_with(start)),
    }
}

/// Whether one of the patterns fits.
pub(crate) fn any(patterns: &[&str], path: &[String]) -> bool {
    patterns.iter().any(|pattern| matches(pattern, path))
}

/// A path's parts, without generic arguments.
pub(crate) fn parts(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| plain(&segment.ident)).collect()
}

/// A name without the `r#` of a raw one.
pub(crate) fn plain(ident: &proc_macro2::Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map(str::to_owned).unwrap_or(name)
}

/// `core` and `alloc` give the same things as `std`.
pub(crate) fn usual(mut path: Vec<String>) -> Vec<String> {
    if matches!(path.first().map(String::as_str), Some("core" | "alloc")) && path.len() > 1 {
        path[0] = "std".to_owned();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_paths() {
        let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
        for (pattern, fits, fits_not) in [
            ("std::time::Instant::now", "std::time::Instant::now", "std::time::Instant::now::x"),
            ("std::fs::*", "std::fs::File::open", "std::fs"),
            ("std::fs::*", "std::fs::read", "std::io::read"),
            ("aws_sdk_*", "aws_sdk_s3::Client::new", "aws_smithy::Client"),
        ] {
            assert!(matches(pattern, &path(fits)), "{pattern} {fits}");
            assert!(!matches(pattern, &path(fits_not)), "{pattern} {fits_not}");
        }
        assert_eq!(usual(path("core::time::Duration")), path("std::time::Duration"));
    }
}
