-- Which versions are kept, by name.
SELECT name, version FROM public.ml_assets_pins;
