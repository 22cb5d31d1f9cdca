"""A local page that generates, denoises and translates, and shows the results where people can look."""
