// Links in Mantine's looks, with places that the router has checked.
import { Anchor, Button, type AnchorProps, type ButtonProps } from '@mantine/core';
import { createLink } from '@tanstack/react-router';
import type { ReactNode, Ref } from 'react';

interface Inner {
  ref?: Ref<HTMLAnchorElement>;
  children?: ReactNode;
}

/** A place as text. */
export const TextLink = createLink((props: AnchorProps & Inner) => <Anchor {...props} />);

/** A place as a button. */
export const ButtonLink = createLink((props: ButtonProps & Inner) => <Button component="a" {...props} />);
