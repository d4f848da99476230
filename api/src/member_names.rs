//! Names of JSON members as lenient readers compare them: some servers match names without case (Go's `encoding/json`
//! does, by Unicode's simple folding), so what is judged by one spelling must not be read by another.

/// The form in which names are equal for such a reader. Upper case first: it also joins `ſ` with `s` and `ς` with `σ`,
/// which have no common lower case.
pub fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let upper = name.chars().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

/// True when such a reader takes one name for the other.
pub fn are_alike(one: &str, other: &str) -> bool {
    if one.is_ascii() && other.is_ascii() {
        one.eq_ignore_ascii_case(other)
    } else {
        folded(one) == folded(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_alike_whatever_the_case_and_the_long_s() {
        for (one, other) in [
            ("params", "PARAMS"),
            ("params", "paramſ"),
            ("token", "to\u{212a}en"),
            ("µ", "μ"),
            ("Σ", "ς"),
        ] {
            assert!(are_alike(one, other), "{one} {other}");
        }
        assert!(!are_alike("params", "param"));
        assert!(!are_alike("params", "pärams"));
    }
}
