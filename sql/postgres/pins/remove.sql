-- Let a version go the way of all others.
DELETE FROM public.ml_assets_pins WHERE name = %s;
