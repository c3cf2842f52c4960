"""Gate: may the merged model replace the champion?"""
