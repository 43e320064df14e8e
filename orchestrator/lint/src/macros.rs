//! Code in the arguments of macros, as far as it looks like code: `join!(a, b)`, `select! { x = f() => y }`,
//! `format!("{}", z)`.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Block, Expr, Stmt, Token};

/// What these arguments hold. What is no code is passed over, with what stands in its brackets looked into.
pub(crate) fn pieces(tokens: TokenStream) -> Vec<Stmt> {
    let mut found = Vec::new();
    read(tokens, &mut found);
    found
}

fn read(tokens: TokenStream, found: &mut Vec<Stmt>) {
    if let Ok(list) = Punctuated::<Expr, Token![,]>::parse_terminated.parse2(tokens.clone()) {
        return found.extend(list.into_iter().map(|expr| Stmt::Expr(expr, None)));
    }
    if let Ok(block) = Block::parse_within.parse2(tokens.clone()) {
        return found.extend(block);
    }
    for separators in [&[",", ";", "=>"][..], &["=", ":"][..]] {
        let parts = split(tokens.clone(), separators);
        if parts.len() > 1 {
            return parts.into_iter().for_each(|part| read(part, found));
        }
    }
    // `tracing` has `?value` and `%value`.
    let mut rest = tokens.clone().into_iter();
    if matches!(rest.next(), Some(TokenTree::Punct(_))) {
        return read(rest.collect(), found);
    }
    for token in tokens {
        if let TokenTree::Group(group) = token
            && group.delimiter() != Delimiter::None
        {
            read(group.stream(), found);
        }
    }
}

/// Splits at separators that stand outside of brackets.
fn split(tokens: TokenStream, separators: &[&str]) -> Vec<TokenStream> {
    let (mut parts, mut operator) = (vec![Vec::<TokenTree>::new()], String::new());
    for token in tokens {
        let joined = match &token {
            // `=>` and `==` are two tokens, the first of which is joined to the second.
            TokenTree::Punct(punct) => {
                operator.push(punct.as_char());
                punct.spacing() == Spacing::Joint
            }
            _ => {
                operator.clear();
                false
            }
        };
        let length = operator.len();
        let part = parts.last_mut().expect("there is always a last part");
        part.push(token);
        if joined {
            continue;
        }
        if separators.contains(&operator.as_str()) {
            part.truncate(part.len() - length);
            parts.push(Vec::new());
        }
        operator.clear();
    }
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| part.into_iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use quote::ToTokens;

    use super::*;

    fn read(text: &str) -> Vec<String> {
        pieces(text.parse().unwrap()).iter().map(|piece| piece.to_token_stream().to_string()).collect()
    }

    #[test]
    fn arguments_are_code_where_they_look_like_it() {
        assert_eq!(read("f(1), g()"), ["f (1)", "g ()"]);
        assert_eq!(read("\"{}\", x = h()"), ["\"{}\"", "x = h ()"]);
        assert_eq!(
            read("x = f() => { g(); } Some(ref y) = h() => k(y), else => l()").join(" | "),
            "x = f () | g () ; | h () | k (y) | l ()"
        );
        assert_eq!(read("{ \"a\": f(), \"b\": [g()] }").join(" | "), "\"a\" | f () | \"b\" | [g ()]");
        assert_eq!(read("0; f()"), ["0 ;", "f ()"]);
        assert_eq!(read("a <= f(), %g"), ["a <= f ()", "g"]);
    }
}
